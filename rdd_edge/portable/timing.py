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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError
from .noise import labels, normals, to_uint8
from .sensors import UNTOLD, Sensors, peak_memory_bytes

__all__ = ["Operator", "Report", "Times", "Work", "run_batches", "run_benchmark"]

PROFILE_RUNS = 10  # of their own, after the timed ones
TIMED = (
    "build_ms", "load_ms", "second_load_ms", "first_inference_ms", "latency_ms", "transfers", "peak_memory_bytes",
    "operators",
)  # fmt: skip

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


class Times(NamedTuple):
    """One run by the device's own clock, in milliseconds."""

    compute: float
    to_device: float
    from_device: float


class Operator(NamedTuple):
    """Where time goes: the fields of results.OperatorTime."""

    name: str
    kind: str
    milliseconds: float  # mean per inference
    backend: str | None


def run_benchmark(
    runner: Any, work: Work, folder: Path, report: Report, sensors: Sensors | None = None
) -> dict[str, Any]:
    """Time a runner, then sample from it. Leaves samples.u8 and samples.f32 in `folder`.

    runner: load() and run(z, label) as of targets.base.Runner, with what that protocol leaves to choice.  sensors: what
    tells of the machine's state; None for what any machine tells.  Returns the fields of a record that the process
    which ran it knows.
    """
    sensors = sensors or Sensors()
    try:
        conditions = [sensors.condition("before", time.monotonic())]
        if getattr(runner, "timed", True):
            timings, during, missing = _timings(runner, work, report, sensors)
            conditions.append(during)
        else:
            report("load", 0)
            runner.load()
            reason = (
                f"{runner.runtime.name} evaluates the artifact: it makes no claim about the target's time or memory"
            )
            timings, missing = dict.fromkeys(TIMED), dict.fromkeys(TIMED, reason)
        samples = _samples(runner, work, folder, report)
        if samples is None:
            missing["samples"] = "the plan asks for none"
        told: list[dict[str, Any]] | None = [*conditions, sensors.condition("after", time.monotonic())]
        modes, reasons = sensors.modes()
    finally:
        sensors.close()
    if all(value is None for one in told or () for name, value in one.items() if name != "when"):
        told, missing["conditions"] = None, UNTOLD
    return {**timings, "samples": samples, "conditions": told, **modes, "missing": {**missing, **reasons}}


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


def _timings(
    runner: Any, work: Work, report: Report, sensors: Sensors
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Build, load, first inference, second load, timed runs in order, operators; the condition; reasons of nulls."""
    z, label = _first_noise(work)
    missing: dict[str, str] = {}
    build = _build(runner, report, missing)
    report("load", 0)
    load = _milliseconds(runner.load)
    report("first", 0)
    first = _milliseconds(lambda: runner.run(z, label))
    report("load", 1)
    second = _milliseconds(runner.load)
    report("warmup", 0)
    for _ in range(work.warmup):
        runner.run(z, label)
    begin = time.monotonic()
    latency, transfers = _timed_runs(runner, work, z, label, report, missing)
    during = sensors.condition("during", begin)  # at once, since reading it takes time of its own
    timings = {
        "build_ms": build,
        "load_ms": load,
        "second_load_ms": second,
        "first_inference_ms": first,
        "latency_ms": latency,
        "transfers": transfers,
        "peak_memory_bytes": _peak_memory(runner, missing),  # before what follows, which is not the artifact's
        "operators": _operators(runner, z, label, report, missing),
    }
    return timings, during, missing


def _peak_memory(runner: Any, missing: dict[str, str]) -> int | None:
    unseen: str | None = getattr(runner, "unseen_memory", None)
    peak = None if unseen else peak_memory_bytes()
    if peak is None:
        missing["peak_memory_bytes"] = unseen or f"not measured on {sys.platform}"
    return peak


def _first_noise(work: Work) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """The noise of the plan's first samples, one batch of it."""
    batch = work.input_shape[0]
    label = None if work.classes is None else labels(range(batch), work.classes)
    return normals(work.seed, range(batch), work.input_shape[1:]), label


def _build(runner: Any, report: Report, missing: dict[str, str]) -> float | None:
    """Milliseconds of making what is loaded, or None where nothing was made, with the reason."""
    if not hasattr(runner, "build"):
        missing["build_ms"] = f"{runner.runtime.name} loads the artifact as it is"
        return None
    report("build", 0)
    start = time.perf_counter_ns()
    reason = runner.build()
    if reason is not None:
        missing["build_ms"] = reason
        return None
    return (time.perf_counter_ns() - start) / 1e6


def _timed_runs(
    runner: Any, work: Work, z: Any, label: Any, report: Report, missing: dict[str, str]
) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]] | None]:
    """Latencies in order, and the copies beside them where the runner's clock tells the two apart."""
    measure = getattr(runner, "measure", None)
    times: list[Times] = []
    begin = time.monotonic()
    while len(times) < work.runs or time.monotonic() - begin < work.seconds:
        if measure is None:
            times.append(Times(_milliseconds(lambda: runner.run(z, label)), 0.0, 0.0))
        else:
            times.append(measure(z, label))
        report("time", len(times))
    latency = tuple(one.compute for one in times)
    if measure is None:
        missing["transfers"] = f"{runner.runtime.name} does not tell copies from computing: a latency holds both"
        return latency, None
    to_device, from_device = tuple(one.to_device for one in times), tuple(one.from_device for one in times)
    return latency, {"to_device_ms": to_device, "from_device_ms": from_device}


def _operators(runner: Any, z: Any, label: Any, report: Report, missing: dict[str, str]) -> list[dict[str, Any]] | None:
    """The runner's own profile of a few more runs, or None with the reason."""
    if not hasattr(runner, "profile"):
        missing["operators"] = f"{runner.runtime.name} is not asked for the time of each operator"
        return None
    report("profile", 0)
    found: list[Operator] | str = runner.profile(z, label, PROFILE_RUNS)
    if isinstance(found, str):
        missing["operators"] = found
        return None
    return [operator._asdict() for operator in found]


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
