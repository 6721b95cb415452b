"""One loop for every stage: resume, step, log, checkpoint, finish.

A stage is an object with `step`; everything it draws is keyed by the step's number, so stopping between any two steps
and loading the state gives the same weights as never having stopped.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..errors import TrainingError
from ..files import storage_errors
from .state import load_latest, save_state

__all__ = ["SAVE_SECONDS", "OutOfTime", "Reporter", "Stage", "run_stage"]

SAVE_SECONDS = 30.0
LOG_STEPS = 20  # a log line costs a gradient per term, and on a GPU a synchronisation


class OutOfTime(Exception):
    """The time the user gave is over; the state is on disk."""


class Stage(Protocol):
    """A resumable piece of training that ends in a folder."""

    name: str
    steps: int

    def step(self, index: int, log: bool) -> Mapping[str, Tensor | float | None] | None:
        """One optimizer step; what is logged when `log` is set. The key "loss" is the one shown."""
        ...

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: dict[str, Tensor]) -> None: ...

    def finish(self, path: Path) -> None:
        """Write the stage's folder."""
        ...


class Reporter(Protocol):
    """Where progress goes: a terminal, or a test's list."""

    def begin(self, stage: str, steps: int, done: int) -> None: ...

    def advance(self, loss: float | None) -> None: ...

    def end(self) -> None: ...

    def note(self, sentence: str) -> None: ...


def run_stage(
    stage: Stage, run: Path, reporter: Reporter, deadline: float = math.inf, save_seconds: float = SAVE_SECONDS
) -> None:
    """Run a stage to its end from wherever it stands, leaving RUN/<name>/ and RUN/logs/<name>.jsonl.

    deadline: on time.monotonic's clock.  save_seconds: how much work a kill may cost.
    Raises OutOfTime past the deadline, TrainingError on a loss that is not finite.
    """
    folder = run / ".state" / stage.name
    done = 0
    if (found := load_latest(folder)) is not None:
        done, tensors, complaints = found
        stage.load(tensors)
        for complaint in complaints:
            reporter.note(complaint)
    log = _Log(run / "logs" / f"{stage.name}.jsonl", done)
    reporter.begin(stage.name, stage.steps, done)
    saved = time.monotonic()
    for index in range(done, stage.steps):
        values = stage.step(index, log=index % LOG_STEPS == 0 or index == stage.steps - 1)
        if values is not None:
            log.write(index, _finite(values, stage.name, index))
        reporter.advance(log.loss)
        if time.monotonic() >= deadline or time.monotonic() - saved >= save_seconds:
            save_state(folder, index + 1, stage.state())
            saved = time.monotonic()
            if saved >= deadline and index + 1 < stage.steps:
                raise OutOfTime(f"stopped in stage {stage.name} after {index + 1} of {stage.steps} steps")
    stage.finish(run / stage.name)
    reporter.end()
    shutil.rmtree(folder, ignore_errors=True)


def _finite(values: Mapping[str, Tensor | float | None], stage: str, index: int) -> dict[str, float | None]:
    """The values as numbers. Raises TrainingError naming the first that is not finite."""
    numbers = {name: None if value is None else float(value) for name, value in values.items()}
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            raise TrainingError(
                f"stage {stage} diverged at step {index}: {name} is {number}; the last good state is kept, "
                "try a lower rate"
            )
    return numbers


class _Log:
    """JSON lines, one logged step each. A resumed stage drops the lines past its state: they will be written again."""

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        self.loss: float | None = None
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = []
            if path.exists() and done > 0:
                kept = [line for line in path.read_text().splitlines() if _step_of(line) < done]
            path.write_text("".join(f"{line}\n" for line in kept))

    def write(self, index: int, values: dict[str, float | None]) -> None:
        self.loss = values.get("loss")
        with storage_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": index, **values}) + "\n")


def _step_of(line: str) -> float:
    """Step of a log line; a line cut short by a kill counts as past everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
