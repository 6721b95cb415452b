"""A training run small enough for a test: every stage of the digits preset, a few steps each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rdd_edge import distributed
from rdd_edge.console import Reporter, reporting_to
from rdd_edge.distillation.config import Preset
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill

TINY = [
    "network.channels=[8,16]", "network.groups=4", "extractor.widths=[1,1]", "extractor.growth=4", "extractor.stem=4",
    "judge.widths=[4,8]", "extractor_training.epochs=1", "judge_training.epochs=1", "extractor_training.batch=256",
    "judge_training.batch=256", "teacher.steps=8", "pd.steps=5", "distillation.steps=6", "teacher.batch=8",
    "pd.batch=8", "distillation.batch=8", "refining.training.steps=5", "refining.training.batch=8", "refining.width=8",
    "memory.capacity=30", "memory.draw=12", "first_steps=16",
]  # fmt: skip


def tiny(*more: str, method: str | None = None) -> Preset:
    return resolve("digits", method=method, settings=[*TINY, *more])


class Recorder(Reporter):
    """Keeps the stages that began, each with the count it began at; the counts reported in them; and the notes."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.counts: list[tuple[str, int]] = []
        self.notes: list[str] = []

    def begin(self, stage: str, total: int | None = None, done: int = 0, unit: str = "") -> None:
        super().begin(stage, total, done, unit)
        self.stages.append((stage, done))

    def advance(self, done: int, loss: float | None = None) -> None:
        self.counts.append((self.stage, done))

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def train(preset: Preset, out: Path, reporter: Reporter, **options: Any) -> None:
    """`distill` with this reporter."""
    with reporting_to(reporter):
        distill(preset, out, **options)


@contextmanager
def as_rank(rank: int, size: int) -> Iterator[None]:
    """Let this process be one of several that do not communicate."""
    previous, distributed._current = distributed._current, distributed.DistributedContext(rank, size)
    try:
        yield
    finally:
        distributed._current = previous


class Killed(BaseException):
    """Stands for the end of the process: nothing in the package catches it."""


class KilledAt(Recorder):
    """Raises Killed after so many steps of one stage."""

    def __init__(self, stage: str, after: int) -> None:
        super().__init__()
        self.where, self.left = stage, after

    def advance(self, done: int, loss: float | None = None) -> None:
        if self.stages[-1][0] == self.where:
            self.left -= 1
            if self.left == 0:
                raise Killed


def weights(run: Path) -> dict[str, bytes]:
    """Bytes of the weights of each finished stage."""
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("*/*.safetensors"))}
