"""Benchmark runs and scores written straight to disk, for tests of what reads them; real images and an extractor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rdd_edge.benchmarking.record import MEASURED, Condition, Device, OperatorTime, RunRecord, Samples, Transfers
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.data.images import ImageSet, content_sha256
from rdd_edge.evaluation.diagnostics import Diagnosis
from rdd_edge.evaluation.sample_quality import Estimate, Neighbors
from rdd_edge.evaluation.scores import Distance, NeighborScores, Psnr, Saturation, Scores, Worst
from rdd_edge.files import sha256_of, write_bytes, write_model
from rdd_edge.portable.noise import normals, to_uint8
from rdd_edge.targets.base import Runtime

SAMPLES, FLOATS = 20, 8
DEVICE = Device(name="box", system="Linux 6", machine="x86_64", processor="a core", cores=2, memory_bytes=2**33)

CONDITION = Condition(
    when="during",
    temperature_c=50.0,
    clock_mhz=1000.0,
    gpu_clock_mhz=600.0,
    gpu_load=0.9,
    power_w=5.0,
    throttled=False,
    thermal_state="none",
    thermal_headroom=0.35,
    battery_level=0.8,
    charging=True,
    foreground=True,
)
OPERATORS = (
    OperatorTime(name="conv_in", kind="Conv", milliseconds=1.2, backend="gpu"),
    OperatorTime(name="conv_out", kind="Conv", milliseconds=0.5, backend="gpu"),
    OperatorTime(name="add", kind="Add", milliseconds=0.1, backend=None),
)

PIXELS = np.random.default_rng(1).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
REAL = ImageSet("noise", PIXELS, None, None, content_sha256(PIXELS, None, None))
ESTIMATE = Estimate(value=0.5, low=0.4, high=0.6)
NEIGHBORS = Neighbors(precision=ESTIMATE, recall=ESTIMATE, density=ESTIMATE, coverage=ESTIMATE, copies=ESTIMATE)


class Means:
    """Features: the means of the image's four quarters."""

    name, sha256, device = "quarters", "a" * 64, "cpu"

    def batches(self, images: np.ndarray) -> Iterator[np.ndarray]:
        for part in np.array_split(np.asarray(images, np.float32), 3):
            yield part.reshape(len(part), 2, 4, 2, 4).mean((2, 4)).reshape(len(part), 4)


def write_run(
    folder: Path,
    target: str = "fake",
    precision: str = "fp32",
    *,
    noise: float = 0.0,
    median_ms: float = 2.0,
    reason: str | None = None,
    channels: int = 1,
) -> Path:
    """A run whose images are tanh(z) and a little noise; `reason`: nothing of it could be measured."""
    plan = Plan(
        performance=PerformancePlan(warmup=0, runs=9, seconds=0, starts=1),
        accuracy=AccuracyPlan(samples=SAMPLES, floats=FLOATS),
    )
    nulls = dict.fromkeys(MEASURED, reason) if reason else {}
    samples = None
    if reason is None:
        x = np.tanh(normals(0, range(SAMPLES), (channels, 8, 8)))
        x = np.clip(x + noise * np.random.default_rng(0).standard_normal(x.shape), -1, 1).astype(np.float32)
        write_bytes(folder / "samples.u8", to_uint8(x).tobytes())
        write_bytes(folder / "samples.f32", x[:FLOATS].transpose(0, 2, 3, 1).astype("<f4").tobytes())
        samples = Samples(
            count=SAMPLES,
            height=8,
            width=8,
            channels=channels,
            seed=0,
            u8_sha256=sha256_of(folder / "samples.u8"),
            floats=FLOATS,
            f32_sha256=sha256_of(folder / "samples.f32"),
        )
    timed = reason is None
    record = RunRecord(
        target=target,
        precision=precision,
        bundle_sha256=None if target == "server" else "b" * 64,
        checkpoint_sha256="c" * 64,
        checkpoint="/runs/gone" if target == "server" else None,
        where="host",
        device=DEVICE,
        runtime=Runtime(name="fakert", version="7.0", backend="cpu") if timed else None,
        threads=2 if timed else None,
        batch=1,
        started_at="2026-11-20T21:00:00+00:00",
        artifact_bytes=1000,
        build_ms=900.0 if timed else None,
        load_ms=5.0 if timed else None,
        second_load_ms=3.0 if timed else None,
        first_inference_ms=2.5 if timed else None,
        latency_ms=tuple(median_ms + 0.01 * i for i in range(-4, 5)) if timed else None,
        transfers=Transfers(to_device_ms=(0.1,) * 9, compute_ms=(1.5,) * 9, from_device_ms=(0.2,) * 9)
        if timed
        else None,
        peak_memory_bytes=10_000_000 if timed else None,
        baseline_memory_bytes=6_000_000 if timed else None,
        compiled_before=False if timed else None,
        starts=1 if timed else None,
        conditions=(CONDITION,) if timed else None,
        power_mode="MAXN" if timed else None,
        clocks_locked=True if timed else None,
        operators=OPERATORS if timed else None,
        samples=samples,
        missing=nulls,
    )
    write_model(folder / "record.json", record)
    write_model(folder / "plan.json", plan)
    return folder


def write_scores(run: Path, reference: Path, *, distance: float = 1.0, server: float = 1.0) -> Path:
    """Scores beside a run, with round figures."""
    from rdd_edge.reading.documents import read_model

    record = read_model(run / "record.json", RunRecord)
    psnr = Psnr(images=8, identical=0, median_db=40.0, worst_percent_db=35.0, worst=(Worst(index=3, psnr_db=34.0),))
    scores = Scores(
        target=record.target,
        precision=record.precision,
        record_sha256=sha256_of(run / "record.json"),
        reference_sha256=sha256_of(reference / "record.json"),
        checkpoint_sha256="c" * 64,
        samples=SAMPLES,
        seed=0,
        psnr_float=psnr,
        psnr_uint8=psnr,
        distance=Distance(
            metric="fd_quarters",
            extractor_sha256="e" * 64,
            real_images=60,
            artifact=distance,
            server=server,
            floor=0.5,
            floor_spread=0.1,
            rise=distance - server,
            rise_low=distance - server - 0.01,
            rise_high=distance - server + 0.01,
            caution="few samples",
        ),
        neighbors=NeighborScores(artifact=NEIGHBORS, server=NEIGHBORS, real=NEIGHBORS),
        saturation=Saturation(artifact=0.1, server=0.1, real=0.2),
        diagnoses=(Diagnosis(name="mirrored", sentence="The images are mirrored."),),
        missing={},
    )
    write_model(run / "scores.json", scores)
    return run / "scores.json"
