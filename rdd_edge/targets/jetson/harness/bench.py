"""Run the bundle that contains this file and write a benchmark run: python3 harness/bench.py --plan plan.json --out OUT

Needs Python 3.10, NumPy and the runtime. Noise, timing and sensors come from rdd-edge's own modules, copied to
harness/rdd_edge. Progress is printed to standard output, one JSON object per line, and an error to standard error.
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

# Before the imports below: bytecode would be files of the bundle that its manifest does not name.
sys.dont_write_bytecode = True

import numpy as np
from parity import check_parity  # type: ignore[import-not-found]  # beside this file, not in a package
from plan import completed  # type: ignore[import-not-found]
from tegra import Tegra, modes, versions  # type: ignore[import-not-found]

from rdd_edge.errors import ArtifactError, CorruptError, DependencyError, MissingError, RddEdgeError, UsageError
from rdd_edge.portable.golden import TOLERANCE, check_golden
from rdd_edge.portable.hashes import check_files, sha256_of
from rdd_edge.portable.noise import labels, normals
from rdd_edge.portable.run_folder import check_out
from rdd_edge.portable.runner import Runner
from rdd_edge.portable.sensors import machine
from rdd_edge.portable.timing import Work, run_benchmark

BUNDLE = Path(__file__).resolve().parent.parent
MANIFEST = BUNDLE / "manifest.json"
RUNTIMES = ("tensorrt", "onnxruntime")  # the first is the default
RECORD_VERSION, PLAN_VERSION, MANIFEST_VERSION = 1, 1, 1
ENGINES = Path.home() / ".cache" / "rdd-edge" / "engines"


def main() -> None:
    arguments = _arguments()
    try:
        record = bench(arguments)
    except RddEdgeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"cannot write {error.filename or arguments.out}: {error.strerror}", file=sys.stderr)
        sys.exit(10)
    _progress("done", len(record["latency_ms"]))


def bench(arguments: argparse.Namespace) -> dict[str, Any]:
    """Check the bundle and the noise of this machine, run, and rename the finished folder to --out.

    Returns the record.
    """
    out = arguments.out.resolve()
    check_out(out)
    if BUNDLE in (out, *out.parents):
        raise UsageError(f"{out} is inside the bundle, which holds nothing but its own files: choose another --out")
    manifest, identity = check_bundle(arguments.expect)
    plan = completed(read_json(arguments.plan, PLAN_VERSION), manifest["default_plan"], arguments.plan)
    noise_difference = check_noise(manifest)
    work = Work.from_plan(tuple(manifest["input"]["shape"]), _classes(manifest), plan)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    artifact = BUNDLE / manifest["artifact"]
    runner = open_runtime(arguments.runtime, artifact, plan["threads"], arguments.engines)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        facts = run_benchmark(runner, work, beside, _progress, Tegra())
        # After the timed runs, since it would warm up the first load; a failure leaves no run all the same.
        _progress("parity", 0)
        parity = check_parity(runner, BUNDLE / "parity", work.input_shape, work.classes is not None, arguments.min_psnr)
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
            "versions": {**versions(), **facts["versions"]},
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


def open_runtime(name: str, artifact: Path, threads: int, engines: Path) -> Runner:
    """A runner of the artifact, in a runtime that is imported only when it is used."""
    if name == "tensorrt":
        from tensorrt_runtime import TensorRT  # type: ignore[import-not-found]

        return TensorRT(artifact, engines, modes()[0]["power_mode"])  # type: ignore[no-any-return]
    from onnx_runtime import OnnxRuntime  # type: ignore[import-not-found]

    try:
        import onnxruntime
    except ImportError:
        raise DependencyError("--runtime onnxruntime needs onnxruntime: pip install onnxruntime") from None
    return OnnxRuntime(onnxruntime, artifact, threads)  # type: ignore[no-any-return]


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


def check_bundle(expect: str | None) -> tuple[dict[str, Any], str]:
    """The manifest and its SHA-256. Raises CorruptError where a file is missing, changed or foreign."""
    manifest = read_json(MANIFEST, MANIFEST_VERSION)
    identity = sha256_of(MANIFEST)
    if expect not in (None, identity):
        raise CorruptError(f"{BUNDLE} is not the expected bundle: its manifest's SHA-256 is {identity}")
    check_files(BUNDLE, manifest["files"], MANIFEST.name)
    return manifest, identity


def check_noise(manifest: dict[str, Any]) -> float:
    """The largest difference of this machine's noise to the bundle's.

    Raises ArtifactError where it is too large, or the rounding or the words differ.
    """
    check_golden(BUNDLE / "contract")
    parity, shape = manifest["parity"], tuple(manifest["input"]["shape"][1:])
    golden = np.fromfile(BUNDLE / "parity" / "z.f32", "<f4").reshape(-1, *shape)
    z = normals(parity["seed"], range(parity["samples"]), shape)
    difference = float(np.abs(z - golden).max()) if z.shape == golden.shape else np.inf
    if not difference <= TOLERANCE:
        raise ArtifactError("the noise self-test failed: this NumPy gives other values than parity/z.f32")
    if classes := _classes(manifest):
        label = labels(range(parity["samples"]), classes)
        if not np.array_equal(label, np.fromfile(BUNDLE / "parity" / "label.i64", "<i8")):
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="Plan of the benchmark run (plan.json).")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the benchmark run.")
    parser.add_argument("--runtime", choices=RUNTIMES, default=RUNTIMES[0], help="Runtime.  Default: %(default)s.")
    parser.add_argument("--engines", type=Path, default=ENGINES, help="Cache folder of TensorRT engines.")
    parser.add_argument("--where", choices=("device", "simulator", "host"), default="device", help="Kind of machine.")
    parser.add_argument("--min-psnr", type=float, help="Least median PSNR in dB to the student, on the parity inputs.")
    parser.add_argument("--expect", help="SHA-256 that manifest.json must have.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
