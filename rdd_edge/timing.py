"""A bench run's work, from loading to the last sample: raw facts in order, no statistics.

Standard library and NumPy alone: this very file also runs on a device, inside a bundle's harness.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactError
from .noise import labels, normals, to_uint8
from .sensors import UNTOLD, condition, peak_memory_bytes

__all__ = ["Report", "Work", "carry_out", "run_batches"]

Report = Callable[[str, int], None]  # stage, count


@dataclass(frozen=True)
class Work:
    """What is to be done: the function's shape and the plan's numbers."""

    input_shape: tuple[int, ...]  # (N, C, H, W), N the artifact's batch
    classes: int | None
    warmup: int
    runs: int
    seconds: float
    samples: int
    seed: int
    floats: int


def carry_out(runner: Any, work: Work, folder: Path, report: Report) -> dict[str, Any]:
    """Time a runner, then sample from it. Leaves samples.u8 and samples.f32 in `folder`.

    runner: load() and run(z, label) as of targets.base.Runner; `timed` False makes no claim about time, `any_batch`
    True takes any number of images at once.  Returns the fields of a record that the process which ran it knows.
    """
    missing: dict[str, str] = {}
    timings, conditions = _timings(runner, work, report)
    timings["peak_memory_bytes"] = peak_memory_bytes()  # before the accuracy run, whose images are not the artifact's
    if timings["peak_memory_bytes"] is None:
        missing["peak_memory_bytes"] = f"not measured on {sys.platform}"
    if not getattr(runner, "timed", True):
        reason = f"{runner.runtime.name} evaluates the artifact and makes no claim about the target's time or memory"
        timings = dict.fromkeys(timings)
        missing = dict.fromkeys(timings, reason)
    samples = _samples(runner, work, folder, report)
    if samples is None:
        missing["samples"] = "the plan asks for none"
    told: list[dict[str, Any]] | None = [*conditions, condition("after")]
    if all(value is None for one in told or () for name, value in one.items() if name != "when"):
        told, missing["conditions"] = None, UNTOLD
    return {**timings, "samples": samples, "conditions": told, "missing": missing}


def run_batches(
    runner: Any,
    input_shape: tuple[int, ...],
    z: NDArray[np.float32],
    label: NDArray[np.int64] | None,
    report: Report | None = None,
    batch: int | None = None,
) -> NDArray[np.float32]:
    """x (N, C, H, W) for any N, in the artifact's own batches; the last is filled up with its last sample.

    batch: another than the artifact's own, for a runner that takes any.
    Raises ArtifactError for an output of another shape or with values that are not finite.
    """
    batch, shape = batch or input_shape[0], input_shape[1:]
    if report:
        report("run", 0)
    parts = [np.empty((0, *shape), dtype=np.float32)]
    for start in range(0, len(z), batch):
        rows = np.minimum(np.arange(start, start + batch), len(z) - 1)
        x = np.asarray(runner.run(z[rows], None if label is None else label[rows]))
        if x.shape != (batch, *shape):
            raise ArtifactError(f"{runner.runtime.name} gave an output of shape {x.shape}, not {(batch, *shape)}")
        finite = np.isfinite(x).reshape(batch, -1).all(axis=1)
        if not finite.all():
            image = start + int(np.argmin(finite))
            raise ArtifactError(f"{runner.runtime.name} gave values that are not finite, first in image {image}")
        parts.append(x[: len(z) - start].astype(np.float32))
        if report:
            report("run", min(start + batch, len(z)))
    return np.concatenate(parts)


def _milliseconds(action: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1e6


def _timings(runner: Any, work: Work, report: Report) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Load, first inference, second load, then the timed runs in order, with the noise of the plan's first samples."""
    batch, shape = work.input_shape[0], work.input_shape[1:]
    z = normals(work.seed, range(batch), shape)
    label = None if work.classes is None else labels(range(batch), work.classes)
    conditions = [condition("before")]
    report("load", 0)
    load = _milliseconds(runner.load)
    report("first", 0)
    first = _milliseconds(lambda: runner.run(z, label))
    report("load", 1)
    second = _milliseconds(runner.load)
    report("warmup", 0)
    for _ in range(work.warmup):
        runner.run(z, label)
    latency: list[float] = []
    begin = time.monotonic()
    while len(latency) < work.runs or time.monotonic() - begin < work.seconds:
        latency.append(_milliseconds(lambda: runner.run(z, label)))
        report("time", len(latency))
    conditions.append(condition("during"))  # at once after the last of them, since reading it takes time of its own
    timings = {
        "load_ms": load,
        "second_load_ms": second,
        "first_inference_ms": first,
        "latency_ms": tuple(latency),
    }
    return timings, conditions


def _samples(runner: Any, work: Work, folder: Path, report: Report) -> dict[str, Any] | None:
    """The accuracy run: uint8 of every sample, floats of the first ones, a few in memory at a time."""
    channels, height, width = work.input_shape[1:]
    if work.samples == 0:
        return None
    kept = min(work.floats, work.samples)
    batch = work.input_shape[0]
    chunk = max(batch, 64 // batch * batch)
    if getattr(runner, "any_batch", False):
        batch = chunk
    hashes = hashlib.sha256(), hashlib.sha256()
    with (folder / "samples.u8").open("wb") as u8, (folder / "samples.f32").open("wb") as f32:
        for start in range(0, work.samples, chunk):
            indices = range(start, min(start + chunk, work.samples))
            z = normals(work.seed, indices, work.input_shape[1:])
            label = None if work.classes is None else labels(indices, work.classes)
            x = run_batches(runner, work.input_shape, z, label, batch=batch)
            pixels = to_uint8(x).tobytes()
            floats = x[: max(0, kept - start)].transpose(0, 2, 3, 1).astype("<f4").tobytes()
            for file, digest, content in ((u8, hashes[0], pixels), (f32, hashes[1], floats)):
                file.write(content)
                digest.update(content)
            report("samples", indices.stop)
    return {
        "count": work.samples,
        "height": height,
        "width": width,
        "channels": channels,
        "seed": work.seed,
        "u8_sha256": hashes[0].hexdigest(),
        "floats": kept,
        "f32_sha256": hashes[1].hexdigest() if kept else None,
    }
