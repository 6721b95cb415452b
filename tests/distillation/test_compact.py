"""A run is compacted, moved, and continued by the same command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import Killed, KilledAt, Recorder, tiny, train, weights

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.distillation.compact import compact
from rdd_edge.distillation.logs import stage_seconds
from rdd_edge.distillation.optimizer import Optimizer
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import read_training_run
from rdd_edge.distillation.state import load_latest
from rdd_edge.errors import UsageError


def stopped(tmp_path: Path, stage: str, after: int) -> Path:
    """A run killed after so many steps of a stage, each of them saved."""
    with pytest.raises(Killed):
        train(tiny(), tmp_path / "run", KilledAt(stage, after), device="cpu", save_seconds=0)
    return tmp_path / "run"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_an_unfinished_teacher_is_carried_in_three_eighths_of_its_size_and_goes_on(tmp_path: Path) -> None:
    run = stopped(tmp_path, "teacher", 6)
    small = compact(run, tmp_path / "small")
    assert small.compacted[0].startswith("teacher at step")
    kept = {"step": load_latest(run / ".state" / "teacher"), "small": load_latest(tmp_path / "small/.state/teacher")}
    assert kept["step"] is not None and kept["small"] is not None
    assert kept["small"][0] == kept["step"][0]
    exact, carried = kept["step"][1], kept["small"][1]
    assert sum(t.nbytes for t in carried.values()) < 0.38 * sum(t.nbytes for t in exact.values())
    assert set(carried) == {name for name in exact if not name.endswith(".exp_avg")}
    for name, tensor in carried.items():
        assert torch.equal(tensor.float(), exact[name].bfloat16().float() if tensor.dim() else exact[name])
    before = stage_seconds(tmp_path / "small", "teacher")
    (tmp_path / "run").rename(tmp_path / "left behind")
    reporter = Recorder()
    train(tiny(), tmp_path / "small", reporter, device="cpu")
    assert reporter.stages[0] == ("teacher", kept["step"][0])
    assert read_checkpoint(tmp_path / "small").card is not None
    assert read_training_run(tmp_path / "small").compacted == small.compacted
    assert stage_seconds(tmp_path / "small", "teacher") > before > 0


def test_stages_that_nothing_reads_again_stay_behind(tmp_path: Path) -> None:
    run = stopped(tmp_path, "student-2", 2)
    compact(run, tmp_path / "small")
    folders = sorted(path.name for path in (tmp_path / "small").iterdir() if path.is_dir())
    assert folders == [".state", "extractor", "judge", "logs", "student-4", "student-8", "teacher"]
    assert size(tmp_path / "small" / "teacher") < 0.55 * size(run / "teacher")
    state = load_latest(tmp_path / "small" / ".state" / "student-2")
    assert state is not None
    assert not [name for name in state[1] if name.startswith("queue") or name.endswith("exp_avg")]
    distill(tiny(), tmp_path / "small", device="cpu")
    assert "student-1" in weights(tmp_path / "small")


def test_a_finished_run_is_carried_and_a_rival_starts_from_it(tmp_path: Path) -> None:
    distill(tiny(), tmp_path / "run", device="cpu")
    small = compact(tmp_path / "run", tmp_path / "small")
    assert small.compacted == ("after refined",)
    assert set(weights(tmp_path / "small")) == {"extractor", "judge", "teacher", "student-8", "refined"}
    reporter = Recorder()
    train(tiny(), tmp_path / "small", reporter, device="cpu")
    assert reporter.stages == []
    distill(tiny(method="rcfd"), tmp_path / "rcfd", start_from=tmp_path / "small", device="cpu")
    assert read_training_run(tmp_path / "rcfd").compacted == small.compacted
    assert read_checkpoint(tmp_path / "rcfd").card is not None


def test_the_data_may_lie_elsewhere_and_the_settings_may_not_differ(tmp_path: Path) -> None:
    run = stopped(tmp_path, "judge", 1)
    told = read_training_run(run)
    moved = told.preset.model_copy(update={"data": "/elsewhere/digits"})
    (run / "run.json").write_text(told.model_copy(update={"preset": moved}).model_dump_json())
    distill(tiny(), run, device="cpu", until="teacher")
    with pytest.raises(UsageError, match=r"was started with teacher.steps=8, and this command asks for 9"):
        distill(tiny("teacher.steps=9"), run, device="cpu")


def test_the_first_steps_without_first_moments_are_small_and_soon_full() -> None:
    """A gradient of constant size: each step of Adam is then the rate, whose sign the parameter follows."""

    def moves(left_out: str | None) -> list[float]:
        parameter = torch.nn.Parameter(torch.zeros(1))
        training = tiny().pd.model_copy(update={"steps": 1000, "rate": 1e-3, "cosine": False})
        optimizer = Optimizer([parameter], training)
        for index in range(60):
            optimizer.step(parameter.sum(), index)
        state = {
            name: value.clone() for name, value in optimizer.tensors().items() if not name.endswith(left_out or "/")
        }
        optimizer = Optimizer([parameter], training)
        optimizer.load(state)
        found = []
        for index in range(60, 90):
            before = parameter.item()
            optimizer.step(parameter.sum(), index)
            found.append((before - parameter.item()) / 1e-3)
        return found

    assert moves(None) == pytest.approx([1.0] * 30, rel=1e-3)
    without = moves(".exp_avg")
    assert without[0] == pytest.approx(0.1, rel=0.01)
    assert without == sorted(without)
    assert without[-1] == pytest.approx(1.0, abs=0.05)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    run = stopped(tmp_path, "judge", 1)
    with pytest.raises(UsageError, match="already exists"):
        compact(run, run)
