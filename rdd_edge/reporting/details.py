"""Details of a benchmark run: the device and its state, the command that repeats it, and the time by operator."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..benchmarking.record import Condition, OperatorTime
from ..benchmarking.run import BenchRun
from .table import megabytes, milliseconds

SHOWN = 10  # kinds of operators
FEWEST = 10  # runs in a tenth of them, for its median to mean something


@dataclass(frozen=True)
class KindTime:
    """All operators of one kind that one backend ran; or, as the last row, all kinds that are not listed."""

    kind: str
    backend: str | None
    count: int  # of operators
    milliseconds: float  # per inference, of all of them
    fraction: float  # of the time of all operators, 0 … 1


def facts(run: BenchRun) -> list[tuple[str, str]]:
    """(name, value) of everything known about where and how the run was made."""
    r, d = run.record, run.record.device
    backend = f" ({r.runtime.backend})" if r.runtime and r.runtime.backend else ""
    rows = [
        ("Device", f"{d.name} ({r.where})"),
        ("Processor", d.processor),
        ("CPU cores", str(d.cores) if d.cores else None),
        ("Memory", f"{d.memory_bytes / 2**30:.1f} GiB" if d.memory_bytes else None),
        ("System", f"{d.system}, {d.machine}"),
        ("Runtime", f"{r.runtime.name} {r.runtime.version}{backend}" if r.runtime else None),
        ("Threads", str(r.threads) if r.threads else None),
        ("Batch size", str(r.batch)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in r.versions.items())),
        ("GPU memory", megabytes(r.device_memory_bytes) if r.device_memory_bytes is not None else None),
        ("Power mode", _power_mode(run)),
        ("Engine build", milliseconds(r.build_ms) if r.build_ms is not None else None),
        ("Compiled before", {True: "yes", False: "no", None: None}[r.compiled_before]),
        ("Second load", milliseconds(r.second_load_ms) if r.second_load_ms is not None else None),
        ("Parts of the latency", _transfers(run)),
        ("Start and end", _sustained(run)),
        ("Memory before loading", megabytes(r.baseline_memory_bytes) if r.baseline_memory_bytes else None),
        ("Process starts", str(r.starts) if r.starts else None),
        ("Conditions", "; ".join(_condition(c) for c in r.conditions or ()) or None),
        ("Runtime's warnings", "; ".join(r.warnings)),
        ("Started", r.started_at),
        ("Bundle SHA-256", r.bundle_sha256),
        ("Checkpoint SHA-256", r.checkpoint_sha256),
    ]
    return [(name, value) for name, value in rows if value]


def command(run: BenchRun) -> str:
    """The command that repeats the run; names in capitals stand for paths that a record does not hold."""
    r = run.record
    if run.is_server:
        return f"rdd-edge bench {shlex.quote(r.checkpoint or 'CHECKPOINT')} --device server --out BENCH"
    if r.where == "host":
        return "rdd-edge bench BUNDLE --device host --out BENCH"
    runtime = " --runtime onnxruntime" if r.runtime and r.runtime.name == "onnxruntime" else ""
    return f"rdd-edge bench BUNDLE --device DEVICE{runtime} --out BENCH"


def _power_mode(run: BenchRun) -> str | None:
    clocks = {True: "clocks locked", False: "clocks not locked", None: None}[run.record.clocks_locked]
    return ", ".join(part for part in (run.record.power_mode, clocks) if part) or None


def _transfers(run: BenchRun) -> str | None:
    """Medians of the latency's parts."""
    parts = run.record.transfers
    if parts is None or not parts.to_device_ms:
        return None
    to_device, compute, from_device = (
        milliseconds(median(ms)) for ms in (parts.to_device_ms, parts.compute_ms, parts.from_device_ms)
    )
    return f"{to_device} copying to the GPU, {compute} computing, {from_device} copying back (medians)"


def _sustained(run: BenchRun) -> str | None:
    """Medians of the first and the last tenth of the timed runs of one start: a device that gets hot slows down."""
    times = run.record.latency_ms or ()
    tenth = len(times) // 10
    if run.record.starts != 1 or tenth < FEWEST:
        return None
    first, last = median(times[:tenth]), median(times[-tenth:])
    return f"{milliseconds(first)} in the first tenth of runs, {milliseconds(last)} in the last ({last / first:.2f}×)"


def _condition(c: Condition) -> str:
    values = [
        (c.temperature_c, "{:.0f} °C"),
        (c.clock_mhz, "CPU {:.0f} MHz"),
        (c.gpu_clock_mhz, "GPU {:.0f} MHz"),
        (c.gpu_load, "GPU load {:.0%}"),
        (c.power_w, "{:.1f} W"),
        (c.throttled or None, "throttled"),
        (c.thermal_state, "thermal state {}"),
        (c.thermal_headroom, "{:.0%} of the way to severe heat"),
        (c.battery_level, "battery at {:.0%}"),
        (c.charging or None, "charging"),
        (c.foreground is False or None, "in the background"),
    ]
    return f"{c.when}: " + ", ".join(text.format(value) for value, text in values if value is not None)


def by_kind(operators: Sequence[OperatorTime], shown: int = SHOWN) -> list[KindTime]:
    """Kinds in the order of their time, the slowest first; those beyond `shown` are summed in a last row."""
    groups: dict[tuple[str, str | None], list[float]] = {}
    for operator in operators:
        groups.setdefault((operator.kind, operator.backend), []).append(operator.milliseconds)
    ordered = sorted(groups.items(), key=lambda group: -sum(group[1]))
    if len(ordered) > shown + 1:
        rest = [time for _, times in ordered[shown:] for time in times]
        ordered = [*ordered[:shown], ((f"{len(ordered) - shown} other kinds", None), rest)]
    total = sum(operator.milliseconds for operator in operators) or 1.0
    return [KindTime(*group, len(times), sum(times), sum(times) / total) for group, times in ordered]
