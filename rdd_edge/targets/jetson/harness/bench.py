"""Runs a bundle where it lies and writes its bench run: python3 harness/bench.py --plan plan.json --out OUT

Needs Python 3.10, NumPy and the runtime, nothing else. Noise, timing and sensors are rdd-edge's own modules, carried
in harness/rdd_edge. Progress goes to standard output, a JSON object a line; an error is one sentence on standard error.
"""

from __future__ import annotations

import argparse
import hashlib
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
from runtimes import RUNTIMES, open_runtime  # type: ignore[import-not-found]  # beside this file, which is no package
from tegra import Tegra  # type: ignore[import-not-found]

from rdd_edge.errors import ArtifactError, CorruptError, MissingError, RddEdgeError
from rdd_edge.portable.noise import labels, normals
from rdd_edge.portable.sensors import machine
from rdd_edge.portable.timing import Work, run_benchmark

BUNDLE = Path(__file__).resolve().parent.parent
MANIFEST = BUNDLE / "manifest.json"
NOISE_TOLERANCE = 1e-6  # of the contract for portable noise
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
    """Check the bundle and this machine's noise, run, and put the run's folder in place whole. Returns the record."""
    manifest, identity = check_bundle(arguments.expect)
    plan = read_json(arguments.plan, PLAN_VERSION)
    check_noise(manifest)
    work = work_of(manifest, plan)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    artifact = BUNDLE / manifest["artifact"]
    runner = open_runtime(arguments.runtime, artifact, plan["threads"], arguments.engines)
    out = arguments.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        facts = run_benchmark(runner, work, beside, _progress, Tegra())
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
        }
        if not record["samples"] or not record["samples"]["floats"]:
            (beside / "samples.f32").unlink(missing_ok=True)
        (beside / "record.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        shutil.copyfile(arguments.plan, beside / "plan.json")
        os.chmod(beside, 0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return record


def work_of(manifest: dict[str, Any], plan: dict[str, Any]) -> Work:
    label, timed, asked = manifest["label"], plan["performance"], plan["accuracy"]
    return Work(
        input_shape=tuple(manifest["input"]["shape"]),
        classes=None if label is None else int(label["high"]) + 1,
        warmup=timed["warmup"],
        runs=timed["runs"],
        seconds=timed["seconds"],
        samples=asked["samples"],
        seed=asked["seed"],
        floats=asked["floats"],
    )


def read_json(path: Path, version: int) -> dict[str, Any]:
    """A document of the version this harness knows."""
    try:
        document = json.loads(path.read_text())
    except OSError:
        raise MissingError(f"there is no {path}") from None
    except ValueError:
        raise CorruptError(f"{path} is not JSON: truncated?") from None
    if not isinstance(document, dict) or document.get("schema_version") != version:
        raise CorruptError(f"{path} is not of version {version} of its schema, the one that this harness knows")
    return document


def check_bundle(expect: str | None) -> tuple[dict[str, Any], str]:
    """The manifest and its SHA-256, once every file was found to be the one it names."""
    manifest = read_json(MANIFEST, MANIFEST_VERSION)
    identity = _sha256(MANIFEST)
    if expect not in (None, identity):
        raise CorruptError(f"{BUNDLE} is another bundle than the one asked for: its manifest's SHA-256 is {identity}")
    for name, expected in manifest["files"].items():
        path = BUNDLE / name
        if BUNDLE not in path.resolve().parents or not path.is_file():
            raise CorruptError(f"{path} is missing from the bundle")
        if _sha256(path) != expected:
            raise CorruptError(f"{path} is not the file its manifest names: its SHA-256 differs")
    return manifest, identity


def check_noise(manifest: dict[str, Any]) -> None:
    """Refuse to go on where this machine's noise is not the bundle's golden noise."""
    asked, shape = manifest["parity"], tuple(manifest["input"]["shape"][1:])
    golden = np.fromfile(BUNDLE / "parity" / "z.f32", "<f4").reshape(-1, *shape)
    z = normals(asked["seed"], range(asked["samples"]), shape)
    if z.shape != golden.shape or np.abs(z - golden).max() > NOISE_TOLERANCE:
        raise ArtifactError("the noise made here differs from the bundle's golden vectors: NumPy is at fault here")
    if manifest["label"] is not None:
        own = labels(range(asked["samples"]), int(manifest["label"]["high"]) + 1)
        if not np.array_equal(own, np.fromfile(BUNDLE / "parity" / "label.i64", "<i8")):
            raise ArtifactError("the class labels made here differ from the bundle's")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


_last: dict[str, float] = {}


def _progress(stage: str, count: int) -> None:
    """A line when the stage changes, and every half second within one."""
    now = time.monotonic()
    if stage in _last and now < _last[stage] + 0.5:
        return
    if stage not in _last:
        _last.clear()
    _last[stage] = now
    print(json.dumps({"stage": stage, "done": count}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bench run")
    parser.add_argument("--runtime", choices=RUNTIMES, default=RUNTIMES[0], help="default: the board's own")
    parser.add_argument("--engines", type=Path, default=ENGINES, help="folder of the engines built on this machine")
    parser.add_argument("--where", choices=("device", "simulator", "host"), default="device", help="what this is")
    parser.add_argument("--expect", help="SHA-256 that manifest.json must have")
    return parser.parse_args()


if __name__ == "__main__":
    main()
