"""A benchmark run on disk, read back and checked against its hashes.

plan.json     what was asked for (bundle.Plan)
record.json   what was measured (record.RunRecord)
samples.u8    the samples, uint8 (N, H, W, C)
samples.f32   the first N' samples before rounding, little-endian float32 (N', H, W, C); only if the plan asks
selftest.json from a device: its images for the bundle's parity inputs against the student's (returned.SelfTest)
scores.json   their quality (evaluation.scores.Scores), once it was evaluated
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Plan
from ..errors import CorruptError, MissingError
from ..files import sha256_of
from ..reading.documents import read_model
from .record import SERVER, RunRecord, Samples

PLAN, RECORD, SCORES, SELFTEST = "plan.json", "record.json", "scores.json", "selftest.json"
SAMPLES = ("samples.u8", "samples.f32")


@dataclass(frozen=True)
class BenchRun:
    """A benchmark run whose files match its record."""

    folder: Path
    plan: Plan
    record: RunRecord

    @property
    def title(self) -> str:
        """Target and precision, as a heading."""
        return f"{self.record.target} {self.record.precision}"

    @property
    def place(self) -> str:
        """Where it ran: the device's name, or "host" or "simulator" for a machine in the device's stead."""
        r = self.record
        return shorten(r.device.name, 24, placeholder="…") if r.where == "device" else r.where

    @property
    def label(self) -> str:
        """The title with the place, for figures of several runs: a host's time says nothing about the device's."""
        return f"{self.title} ({self.place})"

    @property
    def is_server(self) -> bool:
        """Whether the student itself was run, as the reference of the artifacts."""
        return self.record.target == SERVER

    def images(self) -> NDArray[np.uint8]:
        """The samples, (N, H, W, C) uint8, mapped from the file. Empty where the record has none."""
        return self._mapped("samples.u8", "u1", self.record.samples.count if self.record.samples else 0)

    def floats(self) -> NDArray[np.float32]:
        """The first samples before rounding, (N', H, W, C) float32. Empty where the record has none."""
        return self._mapped("samples.f32", "<f4", self.record.samples.floats if self.record.samples else 0)

    def _mapped(self, name: str, dtype: str, count: int) -> NDArray[Any]:
        s = self.record.samples
        if s is None or count == 0:
            return np.empty((0, 0, 0, 0), dtype)
        return np.memmap(self.folder / name, dtype, "r", shape=(count, s.height, s.width, s.channels))


def read_bench_run(folder: Path) -> BenchRun:
    """Read a benchmark run. Raises MissingError where there is none, CorruptError where a file is damaged."""
    if not os.path.isfile(folder / RECORD):
        raise MissingError(f"{folder} is not a benchmark run: it has no {RECORD}")
    if link := next((path for path in sorted(folder.iterdir()) if path.is_symlink()), None):
        raise CorruptError(f"{link} is a symbolic link, which a benchmark run must not contain")
    record, plan = read_model(folder / RECORD, RunRecord), read_model(folder / PLAN, Plan)
    if record.samples:
        _check_samples(folder, record.samples, plan)
    return BenchRun(folder, plan, record)


def _check_samples(folder: Path, samples: Samples, plan: Plan) -> None:
    a = plan.accuracy
    if (samples.seed, samples.count, samples.floats) != (a.seed, a.samples, min(a.floats, a.samples)):
        raise CorruptError(f"{folder}: {RECORD} has other samples than {PLAN} asked for")
    values = samples.height * samples.width * samples.channels
    _check_file(folder / "samples.u8", samples.count * values, samples.u8_sha256)
    if samples.floats and samples.f32_sha256 is None:
        raise CorruptError(f"{folder / RECORD} has floats but no f32_sha256 to check them")
    if samples.floats and samples.f32_sha256:
        _check_file(folder / "samples.f32", 4 * samples.floats * values, samples.f32_sha256)
        if not np.isfinite(np.fromfile(folder / "samples.f32", "<f4")).all():
            raise CorruptError(f"{folder / 'samples.f32'} has values that are not finite")


def _check_file(path: Path, size: int, sha256: str) -> None:
    if not path.is_file():
        raise MissingError(f"there is no {path}, which {RECORD} lists")
    if path.stat().st_size != size:
        raise CorruptError(f"{path} has {path.stat().st_size} bytes, not the {size} that {RECORD} gives: truncated?")
    if sha256_of(path) != sha256:
        raise CorruptError(f"{path} is not the file that {RECORD} lists: its SHA-256 differs")
