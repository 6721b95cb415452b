"""Measure a runner inside its child process: the measured part of a record, typed."""

from __future__ import annotations

from pathlib import Path

from ..bundle import Plan
from ..files import write_model
from ..portable.runner import Runner
from ..portable.timing import Report, Work, run_benchmark
from ..schema import Bytes, Frozen, Milliseconds, Text
from ..targets.base import ExportSpec, Runtime
from .record import Condition, OperatorTime, Samples, Transfers

__all__ = ["Facts", "bench_runner"]


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
    work = Work.from_plan(spec.input_shape, spec.classes, plan.model_dump())
    facts = Facts.model_validate({"runtime": runner.runtime, **run_benchmark(runner, work, folder, report)})
    write_model(folder / "facts.json", facts)
    return facts
