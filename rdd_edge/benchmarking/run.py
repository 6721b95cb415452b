"""Bench runs read back: the record, the plan and the samples, checked against each other and against their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle import Plan
from ..errors import CorruptError, MissingError
from ..files import read_model, sha256_of
from .record import RunRecord, Samples

__all__ = ["BenchRun", "read_bench_run"]


@dataclass(frozen=True)
class BenchRun:
    """A bench run whose samples were found whole."""

    folder: Path
    plan: Plan
    record: RunRecord

    @property
    def title(self) -> str:
        """Target and precision, as a heading."""
        return f"{self.record.target} {self.record.precision}"

    def images(self) -> NDArray[np.uint8]:
        """The samples, (N, H, W, C) uint8, read as they are needed. Empty where the record has none."""
        s = self.record.samples
        if s is None:
            return np.empty((0, 0, 0, 0), np.uint8)
        return np.memmap(self.folder / "samples.u8", np.uint8, "r", shape=(s.count, s.height, s.width, s.channels))

    def floats(self) -> NDArray[np.float32]:
        """The first samples before rounding, (N', H, W, C) float32. Empty where the record has none."""
        s = self.record.samples
        if s is None or s.floats == 0:
            return np.empty((0, 0, 0, 0), np.float32)
        return np.memmap(self.folder / "samples.f32", "<f4", "r", shape=(s.floats, s.height, s.width, s.channels))


def read_bench_run(folder: Path) -> BenchRun:
    """Read a bench run. Raises MissingError where there is none, CorruptError where one is truncated or changed."""
    if not (folder / "record.json").is_file():
        raise MissingError(f"{folder} is not a bench run: it has no record.json")
    if link := next((path for path in sorted(folder.iterdir()) if path.is_symlink()), None):
        raise CorruptError(f"{link} is a symbolic link, and a bench run has none")
    record, plan = read_model(folder / "record.json", RunRecord), read_model(folder / "plan.json", Plan)
    if record.samples:
        _check_plan(folder, record.samples, plan)
        _check_samples(folder, record.samples)
    return BenchRun(folder, plan, record)


def _check_plan(folder: Path, samples: Samples, plan: Plan) -> None:
    asked = plan.accuracy
    if (samples.seed, samples.count, samples.floats) != (asked.seed, asked.samples, min(asked.floats, asked.samples)):
        raise CorruptError(f"{folder}: record.json holds other samples than plan.json asked for")


def _check_samples(folder: Path, samples: Samples) -> None:
    values = samples.height * samples.width * samples.channels
    _check_file(folder / "samples.u8", samples.count * values, samples.u8_sha256)
    if samples.floats and samples.f32_sha256 is None:
        raise CorruptError(f"{folder / 'record.json'} names floats and no f32_sha256 to check them by")
    if samples.floats and samples.f32_sha256:
        _check_file(folder / "samples.f32", 4 * samples.floats * values, samples.f32_sha256)
        if not np.isfinite(np.fromfile(folder / "samples.f32", "<f4")).all():
            raise CorruptError(f"{folder / 'samples.f32'} holds values that are not finite")


def _check_file(path: Path, size: int, sha256: str) -> None:
    if not path.is_file():
        raise MissingError(f"there is no {path}, which its record names")
    if path.stat().st_size != size:
        raise CorruptError(f"{path} has {path.stat().st_size} bytes, not the {size} its record says: truncated?")
    if sha256_of(path) != sha256:
        raise CorruptError(f"{path} is not the file its record names: its SHA-256 differs")
