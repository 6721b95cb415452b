"""Scores of real benchmark runs, against the same numbers computed independently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from records import REAL, Means
from tiny import Recorder

from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.console import reporting_to
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.errors import CorruptError, UsageError
from rdd_edge.evaluation.scores import Scores, score
from rdd_edge.metrics.copying import Spacing, near_copies, sample_ratios
from rdd_edge.metrics.frechet import Statistics, frechet_distance
from rdd_edge.metrics.manifold import RealManifold, manifold_metrics
from rdd_edge.portable.psnr import IDENTICAL_DB, psnr_per_image
from rdd_edge.reading.documents import read_model

PLAN = Plan(
    performance=PerformancePlan(warmup=0, runs=1, seconds=0, starts=1),
    accuracy=AccuracyPlan(samples=40, seed=5, floats=12),
    threads=1,
)


@pytest.fixture
def server(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    bench(tiny_checkpoint, "server", tmp_path / "server", PLAN)
    return tmp_path / "server"


@pytest.fixture
def artifact(tmp_path: Path, make_bundle: Callable[..., Path], tiny_checkpoint: Path) -> Path:
    """A run of an artifact that only shares its hash with the student."""
    bundle = make_bundle(checkpoint_sha256=read_checkpoint(tiny_checkpoint).sha256)
    bench(bundle, "host", tmp_path / "run", PLAN)
    return tmp_path / "run"


def test_scores_are_what_a_hand_computes(
    tmp_path: Path, artifact: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))  # without the statistics of the real images
    recorder = Recorder()
    with reporting_to(recorder):
        scores = score(artifact, server, REAL, Means(), tmp_path / "scores.json")
    assert read_model(tmp_path / "scores.json", Scores) == scores
    mine, theirs = read_bench_run(artifact), read_bench_run(server)
    of = {
        key: Statistics.of(np.concatenate(list(Means().batches(images))))
        for key, images in {"mine": mine.images(), "theirs": theirs.images(), "real": REAL.images}.items()
    }
    d = scores.distance
    assert d is not None
    assert d.metric == "fd_quarters"
    assert d.artifact == pytest.approx(frechet_distance(of["mine"], of["real"]), rel=1e-9)
    assert d.server == pytest.approx(frechet_distance(of["theirs"], of["real"]), rel=1e-9)
    features = np.concatenate(list(Means().batches(REAL.images)))
    orders = [np.random.default_rng(split).permutation(60) for split in range(20)]
    halves = [frechet_distance(Statistics.of(features[o[:30]]), Statistics.of(features[o[30:]])) for o in orders]
    scale = (1 / 40 + 1 / 60) / (2 / 30)
    assert d.floor == pytest.approx(scale * np.mean(halves), rel=1e-9)
    assert d.floor_spread == pytest.approx(scale * np.std(halves, ddof=1), rel=1e-9)
    assert scores.neighbors is not None
    real = RealManifold.of(features)
    for side, run in ((scores.neighbors.artifact, mine), (scores.neighbors.server, theirs)):
        found = manifold_metrics(np.concatenate(list(Means().batches(run.images()))), real)
        assert side.recall.value == found.recall.value
        assert side.recall.low is not None and side.recall.high is not None
        assert side.recall.low <= side.recall.value <= side.recall.high
        ratios = sample_ratios(run.images(), REAL.images, Spacing.of(REAL.images))
        assert side.copies is not None
        assert side.copies.value == near_copies(ratios, Spacing.of(REAL.images))[0]
    assert scores.neighbors.real.coverage.value == real.expected_coverage(40)
    assert d.rise_low is not None
    assert d.rise_high is not None
    assert d.rise_low < d.rise == d.artifact - d.server < d.rise_high
    by_hand = [
        10 * np.log10(4.0 / np.mean((a.astype(float) - b) ** 2))
        for a, b in zip(mine.floats(), theirs.floats(), strict=True)
    ]
    psnr = scores.psnr_float
    assert psnr is not None
    assert psnr.images == 12
    assert psnr.median_db == pytest.approx(np.median(by_hand))
    assert psnr.worst[0].index == int(np.argmin(by_hand))
    assert psnr.worst[0].psnr_db == pytest.approx(min(by_hand))
    assert scores.psnr_uint8 is not None
    assert scores.psnr_uint8.images == 40
    assert scores.saturation is not None
    assert scores.saturation.real == pytest.approx(np.mean((REAL.images == 0) | (REAL.images == 255)))
    assert [diagnosis.name for diagnosis in scores.diagnoses] == ["other noise"]  # it is not the student
    expected = {"real": (20, 40, 60), "artifact": (14, 27, 40), "server": (14, 27, 40)}
    counts = [(f"features of the {images} images", n) for images, counts in expected.items() for n in counts]
    assert [count for count in recorder.counts if count[0].startswith("features")] == counts


def test_the_server_against_itself_is_identical(server: Path) -> None:
    scores = score(server, server, REAL, Means())
    assert scores.psnr_float is not None
    assert scores.psnr_uint8 is not None
    assert scores.distance is not None
    assert (scores.psnr_float.identical, scores.psnr_float.median_db) == (12, IDENTICAL_DB)
    assert scores.psnr_uint8.worst_percent_db == IDENTICAL_DB
    assert scores.distance.rise == scores.distance.rise_low == scores.distance.rise_high == 0.0


def test_psnr_of_a_known_error() -> None:
    a = np.zeros((2, 4, 4, 1), np.uint8)
    b = a.copy()
    b[1] = 51
    np.testing.assert_allclose(psnr_per_image(a, b, 255.0), [IDENTICAL_DB, 20 * np.log10(5)])


def test_an_artifact_without_samples_has_nulls_with_its_reason(
    tmp_path: Path, make_bundle: Callable[..., Path], tiny_checkpoint: Path, server: Path
) -> None:
    bundle = make_bundle("nowhere", checkpoint_sha256=read_checkpoint(tiny_checkpoint).sha256)
    bench(bundle, "host", tmp_path / "run", PLAN)
    scores = score(tmp_path / "run", server, REAL, Means())
    assert scores.distance is scores.psnr_uint8 is scores.psnr_float is scores.saturation is None
    assert set(scores.missing.values()) == {"fakert runs on fake machines only"}


def test_too_few_samples_are_said(tmp_path: Path, tiny_checkpoint: Path) -> None:
    few = PLAN.model_copy(update={"accuracy": AccuracyPlan(samples=4, seed=5, floats=0)})
    bench(tiny_checkpoint, "server", tmp_path / "few", few)
    scores = score(tmp_path / "few", tmp_path / "few", REAL, Means())
    assert scores.distance is not None
    assert scores.distance.caution is not None
    assert "4 samples" in scores.distance.caution
    assert scores.distance.rise_low is None
    assert scores.missing == {"psnr_float": "one of the two runs has no samples before rounding"}


@pytest.mark.parametrize(
    ("accuracy", "what"),
    [(AccuracyPlan(samples=40, seed=6, floats=12), "seed"), (AccuracyPlan(samples=39, seed=5), "count")],
)
def test_other_noise_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, artifact: Path, accuracy: AccuracyPlan, what: str
) -> None:
    bench(tiny_checkpoint, "server", tmp_path / "other", PLAN.model_copy(update={"accuracy": accuracy}))
    with pytest.raises(UsageError, match=f"cannot be compared: the {what} of their samples"):
        score(artifact, tmp_path / "other", REAL, Means())


def test_what_does_not_compare_is_refused(
    tmp_path: Path, make_bundle: Callable[..., Path], artifact: Path, server: Path
) -> None:
    with pytest.raises(UsageError, match="the reference has to be one of --device server"):
        score(server, artifact, REAL, Means())
    with pytest.raises(UsageError, match="other --data"):
        score(artifact, server, replace(REAL, images=REAL.images[:, :4]), Means())
    bench(make_bundle(name="other"), "host", tmp_path / "foreign", PLAN)
    with pytest.raises(UsageError, match="of different checkpoints"):
        score(tmp_path / "foreign", server, REAL, Means())
    (artifact / "samples.u8").write_bytes(bytes(40 * 64))
    with pytest.raises(CorruptError, match="SHA-256 differs"):
        score(artifact, server, REAL, Means())


def test_a_planted_seed_is_named(tmp_path: Path, tiny_checkpoint: Path, server: Path) -> None:
    """A record that claims seed 5 with the samples of seed 6: the student's samples of seed 6 reveal it."""
    plan = PLAN.model_copy(update={"accuracy": AccuracyPlan(samples=40, seed=6, floats=12)})
    bench(tiny_checkpoint, "server", tmp_path / "run", plan)
    for name in ("plan.json", "record.json"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace('"seed": 6', '"seed": 5'))
    diagnoses = score(tmp_path / "run", server, REAL, Means()).diagnoses
    assert [diagnosis.name for diagnosis in diagnoses] == ["other seed"]
    assert "seed 6" in diagnoses[0].sentence
