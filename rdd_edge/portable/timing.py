"""Measure a runner, from loading it to its last sample: raw values in order, no statistics.

Only the standard library and NumPy, because this file also runs on devices, as part of a bundle's harness. A function
that measures a field of the record returns the reason, a str, where the field cannot be measured.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError
from .noise import inputs, to_uint8
from .runner import Runner, Times
from .sensors import NO_SENSOR, NO_SENSORS, NOT_REPORTED, Sensors, peak_memory_bytes, resident_memory_bytes

PROFILE_RUNS = 10  # after the timed ones
MOST_TIMED = 1_000_000  # runs for `seconds`; a plan may ask for more. Many more make a record that no reader takes
TIMED = (
    "build_ms", "load_ms", "second_load_ms", "first_inference_ms", "latency_ms", "transfers", "peak_memory_bytes",
    "baseline_memory_bytes", "compiled_before", "starts", "operators",
)  # fmt: skip

Report = Callable[[str, int], None]  # stage, count


@dataclass(frozen=True)
class Work:
    """What to measure: the shape of the artifact's function and the numbers of a plan."""

    input_shape: tuple[int, ...]  # (N, C, H, W), N the artifact's batch
    classes: int | None
    warmup: int
    runs: int
    seconds: float
    samples: int
    seed: int
    floats: int  # of the first samples, which are kept in float32 as well

    @classmethod
    def from_plan(cls, input_shape: tuple[int, ...], classes: int | None, plan: Mapping[str, Any]) -> Work:
        """plan: the contents of plan.json."""
        performance = {name: plan["performance"][name] for name in ("warmup", "runs", "seconds")}
        return cls(input_shape, classes, **performance, **plan["accuracy"])


def run_benchmark(
    runner: Runner,
    work: Work,
    folder: Path,
    report: Report,
    sensors: Sensors | None = None,
    profiled: bool = True,
) -> dict[str, Any]:
    """Time a runner, then sample from it. Leaves samples.u8 and samples.f32 in `folder`.

    sensors: of the machine; None for those that any machine has.  profiled: whether to time the operators as well.
    Returns the fields of a record that only the process which ran the artifact knows.
    """
    sensors = sensors or Sensors()
    try:
        readings = [sensors.condition("before", time.monotonic())]
        if runner.timed:
            fields, during = _timings(runner, work, report, sensors, profiled)
            readings.append(during)
        else:
            report("load", 0)
            runner.load()
            reason = f"{runner.runtime.name} is a stand-in: it makes no claim about the target's time or memory"
            fields = dict.fromkeys(TIMED, reason)
        fields["samples"] = _samples(runner, work, folder, report)
        readings.append(sensors.condition("after", time.monotonic()))
        modes, reasons = sensors.modes()
    finally:
        sensors.close()
    unknown = [name for name in readings[0] if all(reading[name] is None for reading in readings)]
    known = len(unknown) < len(readings[0]) - 1  # beside the moment of the reading
    fields["conditions"] = readings if known else NO_SENSORS
    missing = {name: value for name, value in fields.items() if isinstance(value, str)}
    if known:
        reasons |= {f"conditions.{name}": NOT_REPORTED.get(name, NO_SENSOR) for name in unknown}
    of_runtime = {name: getattr(runner, name) for name in ("device_memory_bytes", "versions", "warnings")}
    return {**fields, **dict.fromkeys(missing), **of_runtime, **modes, "missing": {**missing, **reasons}}


def run_batches(
    runner: Runner,
    input_shape: tuple[int, ...],
    z: NDArray[np.float32],
    label: NDArray[np.int64] | None,
    report: Report | None = None,
) -> NDArray[np.float32]:
    """x (N, C, H, W) for any N, in batches of the artifact's size, or larger ones where the runner takes any.

    The last batch is filled up with the last sample.
    Raises ArtifactError for an output of the wrong shape or with values that are not finite.
    """
    batch, shape = input_shape[0], input_shape[1:]
    if runner.any_batch:
        batch = min(_chunk(batch), -(-len(z) // batch) * batch)
    if report:
        report("run", 0)
    parts = [np.empty((0, *shape), dtype=np.float32)]
    for start in range(0, len(z), batch):
        rows = np.minimum(np.arange(start, start + batch), len(z) - 1)
        x = np.asarray(runner.sample(z[rows], None if label is None else label[rows]))
        if x.shape != (batch, *shape):
            raise ArtifactError(f"{runner.runtime.name} returned an output of shape {x.shape}, not {(batch, *shape)}")
        finite = np.isfinite(x).reshape(batch, -1).all(axis=1)
        if not finite.all():
            image = start + int(np.argmin(finite))
            raise ArtifactError(f"{runner.runtime.name} returned values that are not finite, first in image {image}")
        parts.append(x[: len(z) - start].astype(np.float32))
        if report:
            report("run", min(start + batch, len(z)))
    return np.concatenate(parts)


def _chunk(batch: int) -> int:
    """The number of samples that are computed or kept at once: whole batches, about 64 samples or one batch."""
    return max(batch, 64 // batch * batch)


def _milliseconds(action: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1e6


def _timings(
    runner: Runner, work: Work, report: Report, sensors: Sensors, profiled: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of TIMED, and the sensors' reading during the timed runs."""
    z, label = inputs(work.seed, range(work.input_shape[0]), work.input_shape[1:], work.classes)
    baseline = resident_memory_bytes()
    build = _build(runner, report)
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
    latency, transfers = _timed_runs(runner, work, z, label, report)
    during = sensors.condition("during", begin)  # at once, since the machine cools down from here on
    timings = {
        "build_ms": build,
        "load_ms": load,
        "second_load_ms": second,
        "first_inference_ms": first,
        "latency_ms": latency,
        "transfers": transfers,
        # Before profiling, which needs memory of its own.
        "peak_memory_bytes": runner.untracked_memory or peak_memory_bytes() or f"not measured on {sys.platform}",
        "baseline_memory_bytes": runner.untracked_memory or baseline or f"not measured on {sys.platform}",
        "compiled_before": isinstance(build, str) if runner.builds else runner.no_compile_cache,
        "starts": 1,
        "operators": _operators(runner, z, label, report) if profiled else "another start is profiled",
    }
    return timings, during


def _build(runner: Runner, report: Report) -> float | str:
    """Duration of the build in milliseconds."""
    if not runner.builds:
        return f"{runner.runtime.name} loads the artifact without a build"
    report("build", 0)
    start = time.perf_counter_ns()
    return runner.build() or (time.perf_counter_ns() - start) / 1e6


def _timed_runs(
    runner: Runner, work: Work, z: Any, label: Any, report: Report
) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]] | str]:
    """Latencies in order, and their parts where the runner times them separately."""
    times: list[Times] = []
    begin = time.monotonic()
    while len(times) < work.runs or (len(times) < MOST_TIMED and time.monotonic() - begin < work.seconds):
        times.append(runner.measure(z, label))
        report("time", len(times))
    latency = tuple(one.latency for one in times)
    parts = {
        f"{name}_ms": tuple(value for one in times if (value := getattr(one, name)) is not None)
        for name in ("to_device", "compute", "from_device")
    }
    if not all(parts.values()):
        return latency, f"{runner.runtime.name} does not time copies separately: a latency includes them"
    return latency, parts


def _operators(runner: Runner, z: Any, label: Any, report: Report) -> list[dict[str, Any]] | str:
    """The runner's own profile of a few more runs."""
    report("profile", 0)
    profile = runner.profile(z, label, PROFILE_RUNS)
    return profile if isinstance(profile, str) else [operator._asdict() for operator in profile]


def _samples(runner: Runner, work: Work, folder: Path, report: Report) -> dict[str, Any] | str:
    """Write all samples as uint8 and the first ones as float32 too, with a few in memory at a time."""
    channels, height, width = work.input_shape[1:]
    if work.samples == 0:
        return "the plan has no samples"
    kept = min(work.floats, work.samples)
    chunk = _chunk(work.input_shape[0])
    hashes = hashlib.sha256(), hashlib.sha256()
    with (folder / "samples.u8").open("wb") as u8, (folder / "samples.f32").open("wb") as f32:
        for start in range(0, work.samples, chunk):
            indices = range(start, min(start + chunk, work.samples))
            z, label = inputs(work.seed, indices, work.input_shape[1:], work.classes)
            x = run_batches(runner, work.input_shape, z, label)
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
