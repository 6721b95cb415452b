"""A run made small enough to be carried to another machine, where the same command goes on with it.

Finished stages lie there in bfloat16, an eighth of what an exact state of the same network takes. Of an unfinished one
the weights and their average do too, and what some hundred steps bring back by themselves is left out: the optimizers'
moments, after which the rate warms up again, and the queue of pixels. So a run that goes on from here does not end with
the very weights of one that never stopped, and its run.json says where that was.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..diffusion.checkpoint import read_checkpoint, save_rounded
from ..diffusion.rounding import round_file, rounded
from ..errors import UsageError
from ..files import new_folder, write_model
from .run import RUN_FILE, RunFile, base_stage, read_training_run, stage_names
from .state import SHARD_BYTES, load_latest, save_state

__all__ = ["compact"]

LEFT_OUT = ("optimizer.", "head_adam.", "queue.")


def compact(run: Path, out: Path, shard_bytes: int = SHARD_BYTES) -> RunFile:
    """Write what continuing `run` needs to the folder `out`, which must not exist. Returns its run.json.

    Raises MissingError or CorruptError where `run` is no run, UsageError where `out` is there.
    """
    told = read_training_run(run)
    if out.exists():
        raise UsageError(f"{out} is there already: choose another --out")
    with new_folder(out) as folder:
        finished = [name for name in _needed(told, run) if (run / name).is_dir()]
        for name in finished:
            _round_stage(run / name, folder / name)
        point = _round_state(run, folder, shard_bytes) or f"after {finished[-1] if finished else 'no stage'}"
        if (run / "logs").is_dir():
            shutil.copytree(run / "logs", folder / "logs")
        small = told.model_copy(update={"compacted": (*told.compacted, point)})
        write_model(folder / RUN_FILE, small)
    return small


def _needed(told: RunFile, run: Path) -> list[str]:
    """Stages in order, without those between the teacher and a base that is there: nothing reads them any more."""
    names = list(stage_names(told.preset))
    base, teacher = names.index(base_stage(told.preset)), names.index("teacher")
    if (run / names[base]).is_dir():
        del names[teacher + 1 : base]
    return names


def _round_stage(stage: Path, path: Path) -> None:
    """A checkpoint, or an extractor: a configuration and its model.safetensors."""
    if not (stage / "model.safetensors").is_file():
        save_rounded(read_checkpoint(stage), path, "bfloat16")
        return
    path.mkdir()
    shutil.copyfile(stage / "config.json", path / "config.json")
    round_file(stage / "model.safetensors", path / "model.safetensors", "bfloat16")


def _round_state(run: Path, folder: Path, shard_bytes: int) -> str | None:
    """The newest whole state of the unfinished stage; says which, or None where there is none."""
    for state in sorted(path for path in (run / ".state").glob("*") if path.is_dir()):
        if (run / state.name).is_dir() or (found := load_latest(state)) is None:
            continue
        step, tensors, _ = found
        kept = {name: value for name, value in tensors.items() if not name.startswith(LEFT_OUT)}
        save_state(folder / ".state" / state.name, step, rounded(kept, "bfloat16"), shard_bytes)
        return f"{state.name} at step {step}"
    return None
