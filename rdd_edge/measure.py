"""What is measured of a runner, inside the child that holds it: raw facts, no statistics."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .errors import ArtifactError
from .files import sha256_of, write_model
from .noise import labels, normals, to_uint8
from .results import Frozen, Milliseconds, Plan, Runtime, Samples
from .targets.base import ExportSpec, Runner

__all__ = ["Facts", "bench_runner", "peak_memory_bytes", "run_batches"]

Report = Callable[[str, int], None]


class Facts(Frozen):
    """The part of a record that only the process which ran the artifact knows."""

    runtime: Runtime | None
    load_ms: Milliseconds | None
    second_load_ms: Milliseconds | None
    first_inference_ms: Milliseconds | None
    latency_ms: tuple[Milliseconds, ...] | None
    peak_memory_bytes: int | None = Field(ge=0)
    samples: Samples | None
    missing: dict[str, str]


def bench_runner(runner: Runner, spec: ExportSpec, plan: Plan, folder: Path, report: Report) -> Facts:
    """Time a runner, then sample from it. Leaves facts.json, samples.u8 and samples.f32 in `folder`."""
    missing: dict[str, str] = {}
    timings = _timings(runner, spec, plan, report)
    peak = peak_memory_bytes()  # before the accuracy run, whose images are not the artifact's
    if peak is None:
        missing["peak_memory_bytes"] = f"not measured on {sys.platform}"
    if not getattr(runner, "timed", True):
        reason = f"{runner.runtime.name} evaluates the artifact and makes no claim about the target's time or memory"
        timings = dict.fromkeys(timings)
        peak = None
        missing = dict.fromkeys([*timings, "peak_memory_bytes"], reason)
    samples = _samples(runner, spec, plan, folder, report)
    if samples is None:
        missing["samples"] = "the plan asks for none"
    facts = Facts(runtime=runner.runtime, **timings, peak_memory_bytes=peak, samples=samples, missing=missing)
    write_model(folder / "facts.json", facts)
    return facts


def run_batches(
    runner: Runner,
    spec: ExportSpec,
    z: NDArray[np.float32],
    label: NDArray[np.int64] | None,
    report: Report | None = None,
    batch: int | None = None,
) -> NDArray[np.float32]:
    """x (N, C, H, W) for any N, in the artifact's own batches; the last is filled up with its last sample.

    batch: another than the artifact's own, for a runner that takes any.
    Raises ArtifactError for an output of another shape or with values that are not finite.
    """
    batch, shape = batch or spec.input_shape[0], spec.input_shape[1:]
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


def peak_memory_bytes() -> int | None:
    """The most physical memory this process has held: Python, NumPy, the runtime's libraries, artifact and buffers.

    VmHWM on Linux rather than ru_maxrss, which a child inherits from the process it was forked from.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes there
    return None


def _milliseconds(action: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1e6


def _timings(runner: Runner, spec: ExportSpec, plan: Plan, report: Report) -> dict[str, object]:
    """Load, first inference, second load, then the timed runs in order, with the noise of the plan's first samples."""
    batch, shape = spec.input_shape[0], spec.input_shape[1:]
    z = normals(plan.accuracy.seed, range(batch), shape)
    label = None if spec.classes is None else labels(range(batch), spec.classes)
    report("load", 0)
    load = _milliseconds(runner.load)
    report("first", 0)
    first = _milliseconds(lambda: runner.run(z, label))
    report("load", 1)
    second = _milliseconds(runner.load)
    report("warmup", 0)
    for _ in range(plan.performance.warmup):
        runner.run(z, label)
    latency: list[float] = []
    begin = time.monotonic()
    while len(latency) < plan.performance.runs or time.monotonic() - begin < plan.performance.seconds:
        latency.append(_milliseconds(lambda: runner.run(z, label)))
        report("time", len(latency))
    return {
        "load_ms": load,
        "second_load_ms": second,
        "first_inference_ms": first,
        "latency_ms": tuple(latency),
    }


def _samples(runner: Runner, spec: ExportSpec, plan: Plan, folder: Path, report: Report) -> Samples | None:
    """The accuracy run: uint8 of every sample, floats of the first ones, a few hundred in memory at a time."""
    asked, (channels, height, width) = plan.accuracy, spec.input_shape[1:]
    if asked.samples == 0:
        return None
    kept = min(asked.floats, asked.samples)
    batch = spec.input_shape[0]
    chunk = max(batch, 64 // batch * batch)
    if getattr(runner, "any_batch", False):
        batch = chunk
    with (folder / "samples.u8").open("wb") as u8, (folder / "samples.f32").open("wb") as f32:
        for start in range(0, asked.samples, chunk):
            indices = range(start, min(start + chunk, asked.samples))
            z = normals(asked.seed, indices, spec.input_shape[1:])
            label = None if spec.classes is None else labels(indices, spec.classes)
            x = run_batches(runner, spec, z, label, batch=batch)
            u8.write(to_uint8(x).tobytes())
            f32.write(x[: max(0, kept - start)].transpose(0, 2, 3, 1).astype("<f4").tobytes())
            report("samples", indices.stop)
    return Samples(
        count=asked.samples,
        height=height,
        width=width,
        channels=channels,
        seed=asked.seed,
        u8_sha256=sha256_of(folder / "samples.u8"),
        floats=kept,
        f32_sha256=sha256_of(folder / "samples.f32") if kept else None,
    )
