"""Benchmark runs of a fake target and of the student itself, in real child processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import Recorder

from rdd_edge.benchmarking.bench import bench, default_plan
from rdd_edge.benchmarking.isolation import Outcome, Request, in_child
from rdd_edge.benchmarking.record import MEASURED, RunRecord, summary
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.console import reporting_to
from rdd_edge.diffusion.checkpoint import Checkpoint, read_checkpoint
from rdd_edge.errors import ArtifactError, CorruptError, MissingError, UsageError
from rdd_edge.files import write_bytes
from rdd_edge.portable import noise
from rdd_edge.reading.documents import read_model
from rdd_edge.targets.base import ExportSpec

QUICK = Plan(
    performance=PerformancePlan(warmup=1, runs=3, seconds=0, starts=1),
    accuracy=AccuracyPlan(samples=6, seed=5, floats=4),
    threads=1,
)


@pytest.mark.parametrize(("batch", "classes"), [(1, None), (4, None), (4, 10)])
def test_samples_are_the_artifacts_own_on_portable_noise(
    tmp_path: Path, make_bundle: Callable[..., Path], batch: int, classes: int | None
) -> None:
    record = bench(make_bundle(batch=batch, classes=classes), "host", tmp_path / "run", None)
    run = read_bench_run(tmp_path / "run")
    assert run.record == record
    x = np.tanh(noise.normals(3, range(70), (1, 8, 8)))
    if classes:
        x = x * (noise.labels(range(70), classes) / 10.0).astype(np.float32)[:, None, None, None]
    np.testing.assert_array_equal(run.images(), noise.to_uint8(x))
    np.testing.assert_array_equal(run.floats(), x[:10].transpose(0, 2, 3, 1))
    assert (record.batch, record.target, record.where) == (batch, "fake", "host")


def test_every_fact_is_there(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    recorder = Recorder()
    with reporting_to(recorder):
        record = bench(make_bundle(), "host", tmp_path / "run", None)
    # A virtual machine has no sensors, and the fake's runtime builds, copies and profiles nothing
    assert {name for name in record.missing if not name.startswith("conditions")} == {
        "build_ms", "transfers", "power_mode", "clocks_locked", "operators", "compiled_before",
    }  # fmt: skip
    assert record.artifact_bytes == len("fine")
    assert record.latency_ms is not None
    assert len(record.latency_ms) == 5
    assert record.peak_memory_bytes is not None
    assert 5e6 < record.peak_memory_bytes < 500e6  # not what this test process, with torch in it, holds
    assert record.baseline_memory_bytes is not None
    assert 5e6 < record.baseline_memory_bytes <= record.peak_memory_bytes
    stats = summary(record)
    assert stats is not None
    assert stats.minimum <= stats.p5 <= stats.median <= stats.p90 <= stats.maximum
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "plan.json", "record.json", "samples.f32", "samples.u8",
    ]  # fmt: skip
    assert "samples" in [stage for stage, _ in recorder.counts]


def test_timed_runs_go_on_for_the_seconds_asked(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    plan = Plan(performance=PerformancePlan(warmup=0, runs=1, seconds=0.3, starts=1), accuracy=AccuracyPlan(samples=0))
    record = bench(make_bundle(), "host", tmp_path / "run", plan)
    assert record.latency_ms is not None
    assert len(record.latency_ms) > 1
    assert record.samples is None
    assert record.missing["samples"] == "the plan has no samples"


def test_timed_runs_are_spread_over_starts_of_the_process(
    tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def recorded(request: Request, folder: Path) -> Outcome:
        asked.append(request)
        return in_child(request, folder)

    monkeypatch.setattr("rdd_edge.benchmarking.bench.in_child", recorded)
    performance = PerformancePlan(warmup=0, runs=7, seconds=0.3, starts=3)
    plan = Plan(performance=performance, accuracy=AccuracyPlan(samples=6, floats=4), threads=1)
    record = bench(make_bundle(), "host", tmp_path / "run", plan)
    plans = [request.plan for request in asked if request.plan is not None]
    assert [one.accuracy.samples for one in plans] == [6, 0, 0]
    assert {(one.performance.runs, round(one.performance.seconds, 3)) for one in plans} == {(3, 0.1)}
    assert record.starts == 3
    assert record.latency_ms is not None
    assert len(record.latency_ms) >= 9
    run = read_bench_run(tmp_path / "run")
    assert run.plan == plan
    assert run.images().shape == (6, 8, 8, 1)


def test_a_second_load_finds_the_first_released(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdd_edge.benchmarking.server import StudentRunner

    runner = StudentRunner(tiny_checkpoint, ExportSpec("fp32", (1, 1, 8, 8), None), 1)
    runner.load()
    held, load = [], Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda self: held.append(runner._model) or load(self))
    runner.load()
    assert held == [None]
    assert runner._model is not None


def test_timing_follows_mlperf_unless_it_is_to_be_quick(
    make_bundle: Callable[..., Path], tiny_checkpoint: Path
) -> None:
    usual, quick = default_plan(tiny_checkpoint), default_plan(tiny_checkpoint, quick=True)
    assert (usual.performance.runs, usual.performance.seconds) == (1024, 60.0)
    assert (quick.performance.runs, quick.performance.seconds) == (128, 10.0)
    assert (usual.performance.starts, quick.performance.starts) == (3, 2)
    assert quick.accuracy == usual.accuracy
    own = default_plan(make_bundle(), quick=True)  # a bundle's own plan but for the times
    assert (own.performance.warmup, own.performance.runs, own.accuracy.samples) == (2, 128, 70)


def test_what_cannot_run_here_is_null_with_its_reason(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    record = bench(make_bundle("nowhere"), "host", tmp_path / "run", None)
    assert set(record.missing) == set(MEASURED)
    assert set(record.missing.values()) == {"fakert runs on fake machines only"}
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["plan.json", "record.json"]
    assert read_bench_run(tmp_path / "run").images().size == 0


def test_an_evaluator_gives_samples_and_no_times(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    record = bench(make_bundle("evaluator"), "host", tmp_path / "run", None)
    assert record.samples is not None
    assert record.latency_ms is record.load_ms is record.peak_memory_bytes is None
    assert "makes no claim" in record.missing["latency_ms"]
    assert record.operators is None


def test_an_evaluator_is_not_run_for_its_time(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    plan = Plan(performance=PerformancePlan(seconds=3600), accuracy=AccuracyPlan(samples=2), threads=1)
    assert bench(make_bundle("evaluator"), "host", tmp_path / "run", plan).samples is not None


def test_a_crash_leaves_the_old_run_alone(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    record = bench(make_bundle(), "host", tmp_path / "run", QUICK)
    with pytest.raises(ArtifactError, match="crashed"):
        bench(make_bundle("segfault", name="other"), "host", tmp_path / "run", QUICK)
    assert read_bench_run(tmp_path / "run").record == record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other", "run"]


@pytest.mark.parametrize("fixture", ["tiny_checkpoint", "tiny_conditional_checkpoint"])
def test_the_server_is_the_student_itself(tmp_path: Path, fixture: str, request: pytest.FixtureRequest) -> None:
    import torch

    from rdd_edge.diffusion.network import one_step

    checkpoint = read_checkpoint(request.getfixturevalue(fixture))
    record = bench(checkpoint.folder, "server", tmp_path / "run", QUICK)
    label = None if checkpoint.classes is None else torch.from_numpy(noise.labels(range(6), checkpoint.classes))
    with torch.no_grad():
        x = one_step(checkpoint.load(), torch.from_numpy(noise.normals(5, range(6), (1, 8, 8))), label)
    run = read_bench_run(tmp_path / "run")
    np.testing.assert_allclose(run.floats(), x[:4].permute(0, 2, 3, 1).numpy(), atol=2e-6)
    assert np.abs(run.images().astype(int) - noise.to_uint8(x.numpy())).max() <= 1
    assert record.checkpoint == str(checkpoint.folder)
    assert (record.target, record.precision, record.bundle_sha256) == ("server", "fp32", None)
    assert record.checkpoint_sha256 == checkpoint.sha256


def test_wrong_arguments_are_sentences(tmp_path: Path, make_bundle: Callable[..., Path], tiny_checkpoint: Path) -> None:
    bundle, out = make_bundle(), tmp_path / "run"
    with pytest.raises(UsageError, match="there is no device 'tpu'"):
        bench(bundle, "tpu", out, None)
    with pytest.raises(UsageError, match=r"is a bundle .* use --device host"):
        bench(bundle, "server", out, None)
    with pytest.raises(UsageError, match="export it first"):
        bench(tiny_checkpoint, "host", out, None)
    with pytest.raises(MissingError, match="there is no bundle or checkpoint"):
        bench(tmp_path / "nothing", "host", out, None)
    with pytest.raises(UsageError, match="is not a benchmark run: choose another"):
        bench(bundle, "host", bundle, None)
    (bundle / "model.fake").write_text("changed")
    with pytest.raises(CorruptError, match="its SHA-256 differs"):
        bench(bundle, "host", out, None)
    assert not out.exists()


def _truncate(run: Path) -> None:
    write_bytes(run / "record.json", (run / "record.json").read_bytes()[:-200])


def _cut_samples(run: Path) -> None:
    write_bytes(run / "samples.u8", (run / "samples.u8").read_bytes()[:-1])


def _flip_sample(run: Path) -> None:
    content = bytearray((run / "samples.u8").read_bytes())
    content[3] ^= 1
    write_bytes(run / "samples.u8", bytes(content))


def _other_plan(run: Path) -> None:
    text = (run / "plan.json").read_text()
    (run / "plan.json").write_text(text.replace('"seed": 5', '"seed": 6'))


def _no_reason(run: Path) -> None:
    record = read_model(run / "record.json", RunRecord)
    (run / "record.json").write_text(record.model_copy(update={"load_ms": None}).model_dump_json())


def _link(run: Path) -> None:
    (run / "samples.u8").rename(run.parent / "elsewhere")
    (run / "samples.u8").symlink_to(run.parent / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "kind", "sentence"),
    [
        (_truncate, CorruptError, "not a valid RunRecord"),
        (_cut_samples, CorruptError, "has 383 bytes, not the 384"),
        (_flip_sample, CorruptError, "its SHA-256 differs"),
        (_other_plan, CorruptError, "other samples than plan.json asked for"),
        (_no_reason, CorruptError, "load_ms is null and `missing` gives no reason"),
        (_link, CorruptError, "is a symbolic link"),
        (lambda run: (run / "samples.f32").unlink(), MissingError, "there is no .*samples.f32"),
        (lambda run: (run / "plan.json").unlink(), MissingError, "there is no .*plan.json"),
        (shutil.rmtree, MissingError, "is not a benchmark run"),
    ],
)
def test_a_broken_run_is_a_sentence(
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    harm: Callable[[Path], None],
    kind: type[Exception],
    sentence: str,
) -> None:
    bench(make_bundle(), "host", tmp_path / "run", QUICK)
    harm(tmp_path / "run")
    with pytest.raises(kind, match=sentence):
        read_bench_run(tmp_path / "run")
