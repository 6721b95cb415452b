"""The harness app of a simulated iPhone, in place of the one in Swift: the same launch arguments, lines and files.

HARNESS_ROOT is its Documents folder. HARNESS_FAULT plants a fault in the third run of the model: throw, hang or crash;
or swap, which reverses the channels. HARNESS_ACTION is Python that is executed when the run has been published.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdd_edge.errors import ArtifactError, RddEdgeError, ThresholdError
from rdd_edge.portable.harness import check_bundle, check_noise, read_json
from rdd_edge.portable.parity import check_parity
from rdd_edge.portable.plan import completed
from rdd_edge.portable.runner import Runner
from rdd_edge.portable.timing import Work, run_benchmark

ROOT, FAULT = Path(os.environ["HARNESS_ROOT"]), os.environ.get("HARNESS_FAULT")


class Tanh(Runner):
    """x = tanh(z), as the fake bundles' student."""

    runtime = SimpleNamespace(name="coreml", version="iOS 18.1", backend="all compute units")
    no_compile_cache = "Core ML does not report whether its cache had the compiled model"
    builds = True
    runs = 0

    def build(self) -> None:
        return None

    def load(self) -> None:
        pass

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        self.runs += 1
        if self.runs == 3 and FAULT == "throw":
            raise ArtifactError("Core ML cannot run model.fake: the third run")
        if self.runs == 3 and FAULT == "hang":
            time.sleep(3600)
        if self.runs == 3 and FAULT == "crash":
            print("Fatal error: \x1b[2Jindex out of range", file=sys.stderr, flush=True)
            os.abort()
        x = np.tanh(z.astype(np.float64)).astype(np.float32)
        return x[:, ::-1] if FAULT == "swap" else x


class Console:
    """A line at each new stage and at most two a second; the time of the last progress."""

    def __init__(self) -> None:
        self.stage, self.printed, self.progress = "", 0.0, time.monotonic()

    def report(self, stage: str, count: int) -> None:
        self.progress = time.monotonic()
        if stage != self.stage or self.progress - self.printed >= 0.5:
            self.stage, self.printed = stage, self.progress
            line(f"{stage} {count}")


def line(text: str) -> None:
    print(f"rdd-edge: {text}", flush=True)


def run(options: argparse.Namespace, console: Console) -> str:
    """Leave the run in its folder. Returns what the last line says of it."""
    bundle, out = ROOT / options.bundle, ROOT / options.out
    for path in (ROOT / "driver").iterdir():  # of earlier runs
        if path not in (bundle, out, ROOT / options.plan):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    console.report("check", 0)
    manifest, identity = check_bundle(bundle, options.bundle_sha256)
    plan = completed(read_json(ROOT / options.plan, 1), manifest["default_plan"], ROOT / options.plan)
    difference = check_noise(bundle, manifest)
    classes = None if manifest["label"] is None else int(manifest["label"]["high"]) + 1
    work, runner = Work.from_plan(tuple(manifest["input"]["shape"]), classes, plan), Tanh()
    console.report("verify", 0)
    parity = check_parity(runner, bundle / "parity", work.input_shape, classes is not None, None)
    if options.min_psnr_db is not None and parity["psnr_db"] < options.min_psnr_db:
        told = (
            f"{parity['psnr_db']:.1f} dB from the student on this device, and {options.min_psnr_db:.1f} dB are required"
        )
        raise ThresholdError(f"the artifact's images are {told}")
    beside = out.with_name(f".{out.name}")
    beside.mkdir(parents=True)
    facts = run_benchmark(runner, work, beside, console.report)
    record = {
        "schema_version": 1, "target": manifest["target"], "precision": manifest["precision"],
        "bundle_sha256": identity,
        "checkpoint_sha256": manifest["checkpoint_sha256"], "checkpoint": None, "where": "device",
        "device": {"name": "Apple iPhone16,1", "system": "iOS 18.1", "machine": "arm64", "processor": None, "cores": 6,
                   "memory_bytes": 8 << 30},
        "runtime": vars(runner.runtime), "threads": None, "batch": work.input_shape[0],
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "artifact_bytes": (bundle / manifest["artifact"]).stat().st_size, **facts,
    }  # fmt: skip
    record["missing"]["threads"] = "Core ML chooses its threads itself"
    test = {"schema_version": 1, "noise_max_difference": difference, **parity, "threshold_db": options.min_psnr_db}
    if not record["samples"] or not record["samples"]["floats"]:
        (beside / "samples.f32").unlink(missing_ok=True)
    for name, document in (("record", record), ("selftest", test), ("plan", plan)):
        (beside / f"{name}.json").write_text(json.dumps(document, allow_nan=False))
    beside.rename(out)
    exec(os.environ.get("HARNESS_ACTION", ""), {"out": out})
    return f"{np.median(record['latency_ms']):.3f} ms median, {parity['psnr_db']:.1f} dB from the student"


def fail(out: Path, error: RddEdgeError) -> None:
    document = {"schema_version": 1, "kind": type(error).__name__, "sentence": str(error)}
    with contextlib.suppress(OSError):
        out.mkdir(parents=True)
        (out / "error.json").write_text(json.dumps(document))
    line(f"error {document['kind']} {document['sentence']}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bundle", "bundle-sha256", "plan", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--min-psnr-db", type=float)
    parser.add_argument("--stall-seconds", type=float, default=600.0)
    options = parser.parse_args()
    print("2026-01-01 10:00:00.000 Harness[1:1] [UIKit App Config] noise of the system", file=sys.stderr, flush=True)
    console, ended = Console(), threading.Event()

    def work() -> None:
        try:
            told: Any = run(options, console)
        except RddEdgeError as error:
            fail(ROOT / options.out, error)
        else:
            line(f"done {told}")
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    while not ended.wait(0.1):
        if time.monotonic() - console.progress > options.stall_seconds:
            sentence = f"there was no progress for {options.stall_seconds:.1f} s in stage {console.stage}"
            fail(ROOT / options.out, ArtifactError(sentence))
            break
    while True:  # the driver ends it
        time.sleep(3600)


main()
