"""Copies a training run in half precision, to continue it on another machine with the same command.

Finished stages are stored in bfloat16, an eighth of an exact state of the same network; so are the weights and the EMA
of an unfinished one, and Adam's second moments, without which the first steps would be too large. What some ten steps
restore by themselves is left out: the first moments and the pixel queue. The continued run therefore does not end with
exactly the weights of an uninterrupted one, and its run.json says at which point it was compacted.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..diffusion.checkpoint import read_checkpoint
from ..diffusion.rounding import round_file, rounded
from ..diffusion.saving import save_rounded
from ..errors import UsageError
from ..files import new_folder, write_model
from ..metrics.classifiers import CONFIG, WEIGHTS, write_card
from .run_folder import (
    RUN_FILE,
    RunFile,
    base_stage,
    classifiers_sha256,
    read_training_run,
    stage_names,
    superseded_stages,
)
from .state import SHARD_BYTES, load_latest, save_state

LEFT_OUT = re.compile(r"queue\.|(optimizer|critic_optimizer|head_adam)\.\d+\.(exp_avg|momentum_buffer)$")


def compact(run: Path, out: Path, shard_bytes: int = SHARD_BYTES) -> RunFile:
    """Write what continuing `run` needs to the folder `out`, which must not exist. Returns its run.json.

    Raises MissingError or CorruptError if `run` is not a training run, UsageError if `out` exists.
    """
    run_file = read_training_run(run)
    if out.exists():
        raise UsageError(f"{out} already exists: choose another --out")
    with new_folder(out) as folder:
        rivals = ("teacher", base_stage(run_file.preset))  # what `--start-from` copies
        superseded = [name for name in superseded_stages(run_file.preset, run) if name not in rivals]
        finished = [name for name in stage_names(run_file.preset) if name not in superseded and (run / name).is_dir()]
        for name in finished:
            _round_stage(run / name, folder / name)
        point = _round_state(run, folder, shard_bytes) or f"after {finished[-1] if finished else 'no stage'}"
        if (run / "logs").is_dir():
            shutil.copytree(run / "logs", folder / "logs")
        points, hashes = (*run_file.compacted, point), classifiers_sha256(folder)
        compacted = run_file.model_copy(update={"compacted": points, "classifiers_sha256": hashes})
        write_model(folder / RUN_FILE, compacted)
    return compacted


def _round_stage(stage: Path, path: Path) -> None:
    """Round a finished stage: a checkpoint, or a classifier's config.json and model.safetensors."""
    if not (stage / WEIGHTS).is_file():
        save_rounded(read_checkpoint(stage), path, "bfloat16")
        return
    path.mkdir()
    shutil.copyfile(stage / CONFIG, path / CONFIG)
    round_file(stage / WEIGHTS, path / WEIGHTS, "bfloat16")
    write_card(path)


def _round_state(run: Path, folder: Path, shard_bytes: int) -> str | None:
    """Round the newest complete state of the unfinished stage; returns its name and step, or None without a state."""
    for state in sorted(path for path in (run / ".state").glob("*") if path.is_dir()):
        if (run / state.name).is_dir() or (latest := load_latest(state)) is None:
            continue
        step, tensors, _ = latest
        kept = {name: value for name, value in tensors.items() if not LEFT_OUT.match(name)}
        save_state(folder / ".state" / state.name, step, rounded(kept, "bfloat16"), shard_bytes)
        return f"{state.name} at step {step}"
    return None
