"""One loop for every stage: resume, step, log, save, finish.

Everything that a stage draws is keyed by the number of the step, so stopping between any two steps and loading the
state gives the same weights as never having stopped.

Every rank of a run holds the whole state, so rank 0 alone writes it. Between logged steps the ranks exchange nothing
but the step's own gathers and sums; rank 0 decides at a logged step when to stop.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..console import reporter
from ..distributed import current
from .guard import DivergenceGuard
from .interrupts import Interrupts
from .logs import RunLog
from .sample_grids import grid_images, is_grid_step
from .stages.base import DiffusionStage, Stage
from .state import SHARD_BYTES, load_latest, save_state

SAVE_SECONDS = 30.0
LOG_STEPS = 20  # a log line costs a gradient per term, and on a GPU a synchronisation


class OutOfTime(Exception):
    """The deadline has passed; the state is saved."""


@dataclass(frozen=True)
class TrainerOptions:
    """When to stop and to save, and what to write beside the weights.

    deadline: on time.monotonic's clock.  save_seconds: between two saved states.  shard_bytes: largest file of a state.
    tensorboard: write the scalars for TensorBoard as well, and grids of samples.
    """

    deadline: float = math.inf
    save_seconds: float = SAVE_SECONDS
    shard_bytes: int = SHARD_BYTES
    tensorboard: bool = False


def run_stage(stage: Stage, run: Path, options: TrainerOptions, device: torch.device, interrupts: Interrupts) -> float:
    """Run a stage from its saved state to its end: writes RUN/<name>/ and RUN/logs/<name>.jsonl.

    Returns the seconds that its first step took, in which its networks are compiled.

    Raises OutOfTime past the deadline and KeyboardInterrupt after Ctrl-C, with the state saved, and TrainingError for a
    loss that is not finite or explodes.
    """
    ranks, folder = current(), run / ".state" / stage.name
    done = _resume(stage, folder)
    ranks.barrier()  # no rank writes while another still reads
    log = RunLog(run, stage.name, done, options.tensorboard) if ranks.is_main else None
    guard = DivergenceGuard(stage.name)
    reporter().begin(stage.name, stage.steps, done, "steps")
    loss, saved, first_step = None, time.monotonic(), 0.0
    for index in range(done, stage.steps):
        logged = index % LOG_STEPS == 0 or index == stage.steps - 1
        # Several ranks agree on what to do at logged steps only: anything more often would cost synchronisation.
        may_save = ranks.size == 1 or logged
        now = time.monotonic()
        stop = may_save and ranks.agree(now >= options.deadline or interrupts.asked, device)
        save = may_save and (stop or ranks.agree(now - saved >= options.save_seconds, device))
        values = stage.step(index, log=logged or save)  # so that the guard has seen what is saved
        if values is not None:
            numbers = guard.check(index, values, remember=logged)
            if logged:
                loss = numbers.get("loss")
            if log and logged:
                log.write(index, numbers)
        if log and options.tensorboard and isinstance(stage, DiffusionStage) and is_grid_step(index, stage.steps):
            log.draw(index, grid_images(stage, device))
        reporter().advance(index + 1, loss)
        if index == done:
            first_step = time.monotonic() - now
        if save:
            if log:
                save_state(folder, index + 1, stage.state(), options.shard_bytes)
            saved = time.monotonic()
            if stop and index + 1 < stage.steps:
                ranks.barrier()
                how = KeyboardInterrupt if interrupts.asked else OutOfTime
                raise how(f"stopped in stage {stage.name} after {index + 1} of {stage.steps} steps")
    if log:
        stage.finish(run / stage.name)
        shutil.rmtree(folder, ignore_errors=True)
        log.close()
    reporter().end()
    return first_step


def _resume(stage: Stage, folder: Path) -> int:
    """Load the newest complete state; returns the number of steps done."""
    if (state := load_latest(folder)) is None:
        return 0
    done, tensors, warnings = state
    stage.load(tensors)
    for warning in warnings:
        reporter().note(warning)
    reporter().note(f"stage {stage.name} continues after {done} of {stage.steps} steps")
    return done
