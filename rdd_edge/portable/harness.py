"""The program that benchmarks a bundle on a board: python3 harness/bench.py --plan plan.json --out OUT

A target's harness/bench.py subclasses `Harness` with its runtimes and sensors, and calls `main`. On the board this
package is the copy in harness/rdd_edge, and NumPy and the runtime are all that is installed. Progress is printed to
standard output, one JSON object per line, and an error to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, CorruptError, MissingError, RddEdgeError, UsageError
from .golden import TOLERANCE, check_golden
from .hashes import check_files, sha256_of
from .noise import labels, normals
from .parity import check_parity
from .plan import completed
from .run_folder import check_out
from .runner import Runner
from .sensors import Sensors, machine
from .timing import Work, run_benchmark

MANIFEST = "manifest.json"
RECORD_VERSION, PLAN_VERSION, MANIFEST_VERSION = 1, 1, 1


class Harness:
    """What a kind of board adds. A subclass sets `runtimes` and implements `open`; the rest is optional."""

    runtimes: tuple[str, ...]  # names for --runtime; the first is the default

    def open(self, arguments: argparse.Namespace, artifact: Path, threads: int, needs: dict[str, Any]) -> Runner:
        """A runner of the artifact in the runtime arguments.runtime, which is imported only here.

        needs: of the bundle's manifest.  Raises DependencyError where the runtime is not installed.
        """
        raise NotImplementedError

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Options of its own."""

    def sensors(self) -> Sensors:
        return Sensors()

    def versions(self) -> dict[str, str]:
        """Versions of the board's software, by name."""
        return {}


def main(harness: Harness, bundle: Path) -> None:
    """Run the bundle as the command line says, and exit with the code of `rdd_edge.errors` where that fails."""
    arguments = _arguments(harness)
    try:
        record = bench(harness, bundle, arguments)
    except RddEdgeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"cannot write {error.filename or arguments.out}: {error.strerror}", file=sys.stderr)
        sys.exit(10)
    _progress("done", len(record["latency_ms"]))


def bench(harness: Harness, bundle: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Check the bundle and the noise of this machine, run, and rename the finished folder to --out.

    Returns the record.
    """
    out = arguments.out.resolve()
    check_out(out)
    if bundle in (out, *out.parents):
        raise UsageError(f"{out} is inside the bundle, which holds nothing but its own files: choose another --out")
    manifest, identity = check_bundle(bundle, arguments.expect)
    plan = completed(read_json(arguments.plan, PLAN_VERSION), manifest["default_plan"], arguments.plan)
    noise_difference = check_noise(bundle, manifest)
    work = Work.from_plan(tuple(manifest["input"]["shape"]), _classes(manifest), plan)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    artifact = bundle / manifest["artifact"]
    runner = harness.open(arguments, artifact, plan["threads"], manifest["needs"])
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        facts = run_benchmark(runner, work, beside, _progress, harness.sensors())
        # After the timed runs, since it would warm up the first load; a failure leaves no run all the same.
        _progress("parity", 0)
        parity = check_parity(runner, bundle / "parity", work.input_shape, work.classes is not None, arguments.min_psnr)
        record = {
            "schema_version": RECORD_VERSION,
            "target": manifest["target"],
            "precision": manifest["precision"],
            "bundle_sha256": identity,
            "checkpoint_sha256": manifest["checkpoint_sha256"],
            "checkpoint": None,
            "where": arguments.where,
            "device": machine(),
            "runtime": vars(runner.runtime),
            "threads": plan["threads"],
            "batch": work.input_shape[0],
            "started_at": started,
            "artifact_bytes": artifact.stat().st_size,
            **facts,
            "versions": {**harness.versions(), **facts["versions"]},
        }
        if not record["samples"] or not record["samples"]["floats"]:
            (beside / "samples.f32").unlink(missing_ok=True)
        (beside / "record.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        test = {"schema_version": 1, "noise_max_difference": noise_difference, **parity}
        (beside / "selftest.json").write_text(json.dumps(test, indent=2, allow_nan=False) + "\n")
        (beside / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")
        os.chmod(beside, 0o755)
        check_out(out)  # again, since a benchmark run takes minutes
        if out.exists():
            shutil.rmtree(out)
        os.replace(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return record


def _classes(manifest: dict[str, Any]) -> int | None:
    return None if manifest["label"] is None else int(manifest["label"]["high"]) + 1


def read_json(path: Path, version: int) -> dict[str, Any]:
    """A JSON document. Raises CorruptError for a schema version that this harness does not support."""
    try:
        document = json.loads(path.read_text())
    except OSError:
        raise MissingError(f"there is no {path}") from None
    except ValueError:
        raise CorruptError(f"{path} is not valid JSON; it may be truncated") from None
    if not isinstance(document, dict) or document.get("schema_version") != version:
        raise CorruptError(f"{path} does not have schema version {version}, the only one this harness supports")
    return document


def check_bundle(bundle: Path, expect: str | None) -> tuple[dict[str, Any], str]:
    """The manifest and its SHA-256. Raises CorruptError where a file is missing, changed or foreign."""
    manifest = read_json(bundle / MANIFEST, MANIFEST_VERSION)
    identity = sha256_of(bundle / MANIFEST)
    if expect not in (None, identity):
        raise CorruptError(f"{bundle} is not the expected bundle: its manifest's SHA-256 is {identity}")
    check_files(bundle, manifest["files"], MANIFEST)
    return manifest, identity


def check_noise(bundle: Path, manifest: dict[str, Any]) -> float:
    """The largest difference of this machine's noise to the bundle's.

    Raises ArtifactError where it is too large, or the rounding or the words differ.
    """
    check_golden(bundle / "contract")
    parity, shape = manifest["parity"], tuple(manifest["input"]["shape"][1:])
    golden = np.fromfile(bundle / "parity" / "z.f32", "<f4").reshape(-1, *shape)
    z = normals(parity["seed"], range(parity["samples"]), shape)
    difference = float(np.abs(z - golden).max()) if z.shape == golden.shape else np.inf
    if not difference <= TOLERANCE:
        raise ArtifactError("the noise self-test failed: this NumPy gives other values than parity/z.f32")
    if classes := _classes(manifest):
        label = labels(range(parity["samples"]), classes)
        if not np.array_equal(label, np.fromfile(bundle / "parity" / "label.i64", "<i8")):
            raise ArtifactError("the label self-test failed: the labels differ from those of parity/label.i64")
    return difference


_last: dict[str, float] = {}


def _progress(stage: str, count: int) -> None:
    """Print a line when the stage changes, and at most two per second within a stage."""
    now = time.monotonic()
    if stage in _last and now < _last[stage] + 0.5:
        return
    if stage not in _last:
        _last.clear()
    _last[stage] = now
    print(json.dumps({"stage": stage, "done": count}), flush=True)


def _arguments(harness: Harness) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the bundle that contains this file and write a benchmark run.")
    default = harness.runtimes[0]
    parser.add_argument("--plan", type=Path, required=True, help="Plan of the benchmark run (plan.json).")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the benchmark run.")
    parser.add_argument("--runtime", choices=harness.runtimes, default=default, help="Runtime.  Default: %(default)s.")
    parser.add_argument("--where", choices=("device", "simulator", "host"), default="device", help="Kind of machine.")
    parser.add_argument("--min-psnr", type=float, help="Least median PSNR in dB to the student, on the parity inputs.")
    parser.add_argument("--expect", help="SHA-256 that manifest.json must have.")
    harness.add_arguments(parser)
    return parser.parse_args()
