"""A training run's student packed: rounded, evaluated on the rounded weights, and described."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.distillation.run import distill
from rdd_edge.errors import UsageError
from rdd_edge.evaluation.checkpoint import evaluate
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.release.pack import pack


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny run, read only."""
    out = tmp_path_factory.mktemp("run") / "run"
    distill(tiny(), out, device="cpu")
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))


def test_metrics_are_of_the_rounded_weights_and_stand_in_the_card(run: Path, tmp_path: Path) -> None:
    (found,) = pack(run, "tiny-edge", tmp_path / "tiny-edge", count=40)
    packed = read_checkpoint(tmp_path / "tiny-edge")
    student = read_checkpoint(run)
    (row,) = found.rows
    assert row.checkpoint_sha256 == packed.sha256 != student.sha256
    real, judge = evaluation_sources(run, None, None)
    again = evaluate(tmp_path / "tiny-edge", (), 40, 0, real, judge)
    assert again.rows[0].distance == row.distance
    assert evaluate(run, (), 40, 0, real, judge).rows[0].distance != row.distance
    for name, value in packed.load().state_dict().items():
        assert torch.equal(value, student.load().state_dict()[name].bfloat16().float())

    packed_judge = evaluation_sources(tmp_path / "tiny-edge", "digits", None)[1]
    assert packed_judge.sha256 == judge.sha256
    with pytest.raises(UsageError, match=r"tiny-edge is not part of a training run: give --data$"):
        evaluation_sources(tmp_path / "tiny-edge", None, None)

    card = (tmp_path / "tiny-edge" / "README.md").read_text()
    assert packed.sha256 in card
    real_images = f"{found.floor:.3f} ± {found.floor_spread:.3f}"
    command = "rdd-edge evaluate tiny-edge --n 40 --seed 0 --data digits"
    assert f"| fd_digits_cnn | {row.distance:.3f} | {real_images} | `{command}` |" in card
    assert "| student-4 | rdd: 6 steps, batch 8, rate 0.0005 |" in card
    assert "--set 'teacher.steps=8'" in card
    assert str(tmp_path) not in card and str(run) not in card


def test_minutes_are_those_that_the_stages_trained(run: Path, tmp_path: Path) -> None:
    seconds = run / "logs" / "teacher.seconds"
    kept = seconds.read_text()
    assert 0 < float(kept) < 600
    try:
        seconds.write_text("754.0\n")
        pack(run, "tiny-edge", tmp_path / "model", count=20)
    finally:
        seconds.write_text(kept)
    assert "| teacher | 8 steps, batch 8, rate 0.002 | 12.6 |" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Tiny Edge"}, "--name Tiny Edge is not valid"),
        ({"dtype": "int8"}, "there is no --dtype int8"),
        ({"extractors": ["nowhere"]}, "nowhere"),
    ],
)
def test_what_cannot_be_packed_leaves_nothing(run: Path, tmp_path: Path, change: dict[str, object], says: str) -> None:
    from rdd_edge.errors import RddEdgeError

    arguments = {"name": "tiny-edge", "out": tmp_path / "model", "count": 20} | change
    with pytest.raises(RddEdgeError, match=says):
        pack(run, **arguments)
    assert not list(tmp_path.glob("*model*"))


def test_a_checkpoint_outside_a_run_has_no_recipe(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a training run"):
        pack(run / "student-1", "tiny-edge", tmp_path / "model")


def test_without_a_judge_the_extractor_is_named(tmp_path: Path) -> None:
    preset = tiny().model_copy(update={"judge": None, "judge_training": None, "first_steps": 8})
    distill(preset, tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="were trained against its extractor: give --extractor"):
        pack(tmp_path / "run", "tiny-edge", tmp_path / "model")


def test_another_extractor_takes_the_place_of_the_judge(run: Path, tmp_path: Path) -> None:
    pack(run, "tiny-edge", tmp_path / "model", count=20, extractors=[str(run / "extractor")])
    assert "--data digits --extractor RUN/extractor` |" in (tmp_path / "model" / "README.md").read_text()
    assert not (tmp_path / "model" / "judge").exists()
    with pytest.raises(UsageError, match=r"model is not part of a training run: give --data and --extractor$"):
        evaluation_sources(tmp_path / "model", None, None)
    with pytest.raises(UsageError, match=r"model is not part of a training run: give --extractor$"):
        evaluation_sources(tmp_path / "model", "digits", None)
