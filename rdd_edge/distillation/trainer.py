"""One loop for every stage: resume, step, log, checkpoint, finish.

A stage is an object with `step`; everything it draws is keyed by the step's number, so stopping between any two steps
and loading the state gives the same weights as never having stopped.

Every process of a run holds the whole state, so rank 0 alone writes it. Between logged steps the processes exchange
nothing but the step's own gathers and sums; when to stop is rank 0's to say, at a logged step.
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
from .guard import Guard
from .logs import Log, NoLog, RunLog
from .sample_grids import due, pictures
from .stages.base import DiffusionStage, Stage
from .state import SHARD_BYTES, load_latest, save_state

__all__ = ["LOG_STEPS", "SAVE_SECONDS", "Keeping", "OutOfTime", "run_stage"]

SAVE_SECONDS = 30.0
LOG_STEPS = 20  # a log line costs a gradient per term, and on a GPU a synchronisation


class OutOfTime(Exception):
    """The time the user gave is over; the state is on disk."""


@dataclass(frozen=True)
class Keeping:
    """When to stop, and what to leave on disk on the way.

    deadline: on time.monotonic's clock.  save_seconds: how much work a kill may cost.
    shard_bytes: of a file of the state.  tensorboard: whether scalars go there beside the JSON lines, and grids of
    samples there and beside those.
    """

    deadline: float = math.inf
    save_seconds: float = SAVE_SECONDS
    shard_bytes: int = SHARD_BYTES
    tensorboard: bool = False


def run_stage(stage: Stage, run: Path, keeping: Keeping, device: torch.device) -> None:
    """Run a stage to its end from wherever it stands, leaving RUN/<name>/ and RUN/logs/<name>.jsonl.

    Raises OutOfTime past the deadline, TrainingError on a loss that is not finite or explodes.
    """
    processes, folder = current(), run / ".state" / stage.name
    done = _resume(stage, folder)
    processes.barrier()  # nobody writes while another still reads
    log: Log = RunLog(run, stage.name, done, keeping.tensorboard) if processes.is_main else NoLog()
    guard = Guard(stage.name)
    reporter().begin(stage.name, stage.steps, done, "steps")
    saved = time.monotonic()
    for index in range(done, stage.steps):
        logged = index % LOG_STEPS == 0 or index == stage.steps - 1
        # Processes that save at moments of their own would part ways, so several do it where all of them log.
        may_stop = processes.size == 1 or logged
        now = time.monotonic()
        late = may_stop and processes.agree(now >= keeping.deadline, device)
        save = may_stop and (late or processes.agree(now - saved >= keeping.save_seconds, device))
        values = stage.step(index, log=logged or save)  # what is saved has been looked at
        if values is not None:
            numbers = guard.check(index, values, remember=logged)
            if logged:
                log.write(index, numbers)
        if keeping.tensorboard and processes.is_main and isinstance(stage, DiffusionStage) and due(index, stage.steps):
            log.draw(index, pictures(stage, device))
        reporter().advance(index + 1, log.loss)
        if save:
            if processes.is_main:
                save_state(folder, index + 1, stage.state(), keeping.shard_bytes)
            saved = time.monotonic()
            if late and index + 1 < stage.steps:
                processes.barrier()
                raise OutOfTime(f"stopped in stage {stage.name} after {index + 1} of {stage.steps} steps")
    if processes.is_main:
        stage.finish(run / stage.name)
        shutil.rmtree(folder, ignore_errors=True)
    log.close()
    reporter().end()


def _resume(stage: Stage, folder: Path) -> int:
    """Load the newest whole state; the steps that are done."""
    if (found := load_latest(folder)) is None:
        return 0
    done, tensors, complaints = found
    stage.load(tensors)
    for complaint in complaints:
        reporter().note(complaint)
    return done
