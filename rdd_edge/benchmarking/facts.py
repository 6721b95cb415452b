"""What is measured of a runner, inside the child that holds it, as a typed part of a record."""

from __future__ import annotations

from pathlib import Path

from ..bundle import Plan
from ..files import write_model
from ..portable.timing import Report, Work, run_benchmark
from ..schema import Bytes, Frozen, Milliseconds, Text  # fmt: skip
from ..targets.base import ExportSpec, Runner, Runtime
from .record import Condition, OperatorTime, Samples, Transfers

__all__ = ["Facts", "bench_runner", "work_of"]


class Facts(Frozen):
    """The part of a record that only the process which ran the artifact knows."""

    runtime: Runtime | None
    build_ms: Milliseconds | None
    load_ms: Milliseconds | None
    second_load_ms: Milliseconds | None
    first_inference_ms: Milliseconds | None
    latency_ms: tuple[Milliseconds, ...] | None
    transfers: Transfers | None
    peak_memory_bytes: Bytes | None
    conditions: tuple[Condition, ...] | None
    power_mode: Text | None
    clocks_locked: bool | None
    operators: tuple[OperatorTime, ...] | None
    samples: Samples | None
    missing: dict[Text, Text]


def bench_runner(runner: Runner, spec: ExportSpec, plan: Plan, folder: Path, report: Report) -> Facts:
    """Time a runner, then sample from it. Leaves facts.json, samples.u8 and samples.f32 in `folder`."""
    facts = Facts.model_validate(
        {"runtime": runner.runtime, **run_benchmark(runner, work_of(spec, plan), folder, report)}
    )
    write_model(folder / "facts.json", facts)
    return facts


def work_of(spec: ExportSpec, plan: Plan) -> Work:
    return Work(
        input_shape=spec.input_shape,
        classes=spec.classes,
        warmup=plan.performance.warmup,
        runs=plan.performance.runs,
        seconds=plan.performance.seconds,
        samples=plan.accuracy.samples,
        seed=plan.accuracy.seed,
        floats=plan.accuracy.floats,
    )
