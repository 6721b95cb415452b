"""record.json: the schema of what a benchmark run measured, the same for every device.

A record holds raw measurements. Statistics are not stored: `summary` computes them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ..portable.sensors import machine
from ..schema import Bytes, Count, Frozen, Instant, Milliseconds, Name, Sha256, Side, Text, UInt64, Version1
from ..targets.base import Runtime

SERVER = "server"  # in place of a target's name: the student itself in PyTorch
MEASURED = (
    "runtime", "threads", "build_ms", "load_ms", "second_load_ms", "first_inference_ms", "latency_ms", "transfers",
    "peak_memory_bytes", "baseline_memory_bytes", "compiled_before", "starts", "conditions", "power_mode",
    "clocks_locked", "operators", "samples",
)  # fmt: skip


class Device(Frozen):
    """The machine that ran the artifact. None: it does not report this."""

    name: Text
    system: Text  # operating system and release
    machine: Text  # instruction set, as uname -m
    processor: Text | None
    cores: Side | None
    memory_bytes: Bytes | None


class Samples(Frozen):
    """The samples of a run: their number, shape, seed and hashes."""

    count: Count
    height: Side
    width: Side
    channels: Side
    seed: UInt64
    u8_sha256: Sha256
    floats: Count
    f32_sha256: Sha256 | None

    @property
    def noise(self) -> dict[str, int]:
        """Seed, number and shape, which two runs of the same noise have in common."""
        return self.model_dump(include={"seed", "count", "height", "width", "channels"})


class Condition(Frozen):
    """The machine's state before, during or after the timed runs. None: it does not report this."""

    when: Literal["before", "during", "after"]
    temperature_c: Annotated[float, Field(ge=-100, le=300)] | None  # of the hottest zone
    clock_mhz: Annotated[float, Field(ge=0, le=1e6)] | None  # of the fastest core
    gpu_clock_mhz: Annotated[float, Field(ge=0, le=1e6)] | None
    gpu_load: Annotated[float, Field(ge=0, le=1)] | None
    power_w: Annotated[float, Field(ge=0, le=1e6)] | None
    throttled: bool | None
    thermal_state: Text | None  # in the system's own words, e.g. none, light, severe
    thermal_headroom: Annotated[float, Field(ge=0, le=100)] | None  # used up: 1 at Android's status "severe"
    battery_level: Annotated[float, Field(ge=0, le=1)] | None
    charging: bool | None  # whether external power is connected
    foreground: bool | None  # whether the app that runs the artifact is the one on the screen


class ThermalChange(Frozen):
    """The thermal state that began after so many timed runs."""

    run: Count
    state: Text  # in the system's own words


class Transfers(Frozen):
    """Parts of the latency of each timed run, in order: copies to a GPU and back, and its computation, by its clock."""

    to_device_ms: tuple[Milliseconds, ...]
    compute_ms: tuple[Milliseconds, ...]
    from_device_ms: tuple[Milliseconds, ...]


class OperatorTime(Frozen):
    """Time of one operator, measured in separate runs, because profiling slows the inferences it observes."""

    name: Text  # of a node or a layer; of a kind where the profiler reports no more
    kind: Text  # operator type, e.g. Conv
    milliseconds: Milliseconds  # mean per inference
    backend: Text | None  # that ran it: a provider, a delegate, cpu, cuda; None: not reported


class RunRecord(Frozen):
    """One benchmark run. A field that could not be measured is null; `missing` gives the reason by field name.

    A field that is null in every condition has its reason under conditions.<name>.
    """

    schema_version: Version1 = 1
    target: Name  # a target's folder name, or SERVER
    precision: Name
    bundle_sha256: Sha256 | None  # of the manifest.json that was measured; None for the server
    checkpoint_sha256: Sha256  # of the student that was exported, or that the server ran
    checkpoint: Text | None  # folder of the student; only for the server
    class_names: tuple[Text, ...] | None = None  # which the samples take in turn; only for the server
    where: Literal["device", "simulator", "host"]
    device: Device
    runtime: Runtime | None
    threads: int | None = Field(ge=1, le=1024)
    batch: Side
    started_at: Instant
    artifact_bytes: Bytes | None
    build_ms: Milliseconds | None  # of what is loaded, where the device builds it, e.g. a TensorRT engine
    load_ms: Milliseconds | None
    second_load_ms: Milliseconds | None
    first_inference_ms: Milliseconds | None
    latency_ms: tuple[Milliseconds, ...] | None  # of every timed run, in order: host memory to host memory
    transfers: Transfers | None
    peak_memory_bytes: Bytes | None  # of the process
    baseline_memory_bytes: Bytes | None  # of the process before it loaded the artifact
    device_memory_bytes: Bytes | None = None  # of a GPU, that the loaded artifact takes; None: none, or not measured
    compiled_before: bool | None  # whether the first load found what an earlier run had compiled
    starts: int | None = Field(ge=1, le=100)  # of the process; the timed runs are spread over them
    conditions: tuple[Condition, ...] | None
    # During the timed runs: the state at their start, at run 0, and each change. Empty: the harness does not watch it.
    thermal_changes: Annotated[tuple[ThermalChange, ...], Field(max_length=10_000)] = ()
    power_mode: Text | None  # in the board's own words, e.g. MAXN
    clocks_locked: bool | None  # held at their maximum, e.g. by jetson_clocks
    versions: dict[Text, Text] = Field(
        default={}
    )  # of what lies below the runtime, by name, e.g. l4t, cuda, cuda driver
    warnings: Annotated[tuple[Text, ...], Field(max_length=100)] = ()  # that the runtime logged, each once
    operators: Annotated[tuple[OperatorTime, ...], Field(max_length=100_000)] | None
    samples: Samples | None
    missing: dict[Text, Text]

    @model_validator(mode="after")
    def _explained(self) -> RunRecord:
        for name in MEASURED:
            if getattr(self, name) is None and not self.missing.get(name):
                raise ValueError(f"{name} is null and `missing` gives no reason")
        for name in Condition.model_fields if self.conditions else ():
            known = any(getattr(condition, name) is not None for condition in self.conditions or ())
            if not known and not self.missing.get(f"conditions.{name}"):
                raise ValueError(f"conditions.{name} is null and `missing` gives no reason")
        return self

    @model_validator(mode="after")
    def _one_transfer_per_run(self) -> RunRecord:
        runs, parts = len(self.latency_ms or ()), self.transfers
        lengths = {len(ms) for ms in (parts.to_device_ms, parts.compute_ms, parts.from_device_ms)} if parts else {runs}
        if lengths != {runs}:
            raise ValueError(f"transfers: expected {runs} of each part, one for each timed run")
        return self

    @model_validator(mode="after")
    def _changes_in_order(self) -> RunRecord:
        runs = [change.run for change in self.thermal_changes]
        if runs != sorted(set(runs)) or max(runs, default=0) > len(self.latency_ms or ()):
            raise ValueError("thermal_changes: expected numbers of timed runs, each larger than the one before")
        return self


class Summary(Frozen):
    """Statistics of the timed runs of one record, in milliseconds."""

    runs: int
    minimum: float
    p5: float
    median: float
    p90: float
    p99: float
    maximum: float


def summary(record: RunRecord) -> Summary | None:
    """Statistics of a record's latencies; None where it has none."""
    if not record.latency_ms:
        return None
    times = np.asarray(record.latency_ms, dtype=np.float64)
    p5, median, p90, p99 = np.percentile(times, [5, 50, 90, 99])
    return Summary(runs=len(times), minimum=times.min(), p5=p5, median=median, p90=p90, p99=p99, maximum=times.max())


def this_machine() -> Device:
    """The machine this process runs on; None for what it does not report."""
    return Device.model_validate(machine())
