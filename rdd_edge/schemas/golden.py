"""The golden documents in the folder golden: what an implementation of a harness, in any language, is run against.

    {"proves": …, "cases": […]}                     numbers to compute again, or texts to judge
    {"proves": …, "accepted": […], "refused": […]}  documents to read; a refused one is the first accepted document in
                                                    which the value at the keys `at` is replaced by the text `json`

Seeds and indices are texts, since JSON readers differ on numbers above 2**53.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..benchmarking.record import Condition, Device, RunRecord, Samples, ThermalChange
from ..benchmarking.returned import Failure
from ..bundle import Manifest, Needs, Parity, Plan, Requirement, TensorSpec
from ..portable.golden import pixel, words
from ..portable.noise import labels, normals
from ..schema import MOST_TEXT
from ..targets.base import Runtime

SEEDS = (0, 7, 2**32 + 1, 2**63 + 5, 2**64 - 1)
INDICES = (0, 1, 2**32 - 1, 2**32 + 5, 2**64 - 1)
BLOCKS = (0, 1, 767)
SIZES = (64, 105, 1, 6)  # 105 and 6 are no multiples of a block's four values
CLASSES = (1, 10, 1000)
HASH = "0123456789abcdef" * 4
Edit = tuple[str, str, str]  # why it is refused; keys, separated by spaces; JSON text of the value


def golden_text(name: str) -> str:
    """A document with one case a line, so that a change shows as a change of lines."""
    parts = []
    for key, value in GOLDEN[name]().items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in value)
            value = f"[\n{lines}\n]"
        else:
            value = json.dumps(value)
        parts.append(f'"{key}": {value}')
    return "{" + ",\n".join(parts) + "}\n"


def _words() -> dict[str, Any]:
    return {
        "proves": "Philox4x32-10 and the place of seed, sample index and block in its key and counter, with indices "
        "above 2**32 and seeds above 2**63",
        "cases": [
            {"seed": str(seed), "index": str(index), "block": block, "words": words(seed, index, block)}
            for seed in SEEDS
            for index in INDICES
            for block in BLOCKS
        ],
    }


def _normals() -> dict[str, Any]:
    return {
        "proves": "Box-Muller in float64 and the order of a sample's values, within 1e-6",
        "cases": [
            {
                "seed": str(seed),
                "index": str(index),
                "z": _decimals(normals(seed, [index], (size,))),
            }
            for seed in SEEDS
            for index in INDICES[::2]
            for size in SIZES
        ],
    }


def _decimals(z: NDArray[np.float32]) -> list[float]:
    """To the nine digits that determine a float32."""
    return [float(f"{value:.9g}") for value in z.ravel()]


def _labels() -> dict[str, Any]:
    return {
        "proves": "class labels: the sample index modulo the number of classes, in 64 bits without a sign",
        "cases": [
            {"index": str(index), "classes": classes, "label": int(labels([index], classes)[0])}
            for index in INDICES
            for classes in CLASSES
        ],
    }


def _rounding() -> dict[str, Any]:
    """Each level, the halves between them with their neighbours, and values to be clamped."""
    levels = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    halves = np.array([(k - 128) / 127.5 for k in range(257)], dtype=np.float32)
    exact = np.array([0.0, -0.0, 1.0, -1.0, 0.2, 0.6, -0.2, -0.6, 1 / 255, -1 / 255], dtype=np.float32)
    beyond = np.array([-1.2, -1.00001, 1.00001, 1.5, 3.0, 1e30, -1e30, 1e-40], dtype=np.float32)
    beside = [np.nextafter(halves, np.float32(end)) for end in (-9, 9)]
    values = np.concatenate([levels, halves, *beside, exact, beyond])
    return {
        "proves": "uint8 from float32: floor(127.5 x + 128) in float32, clamped; `bits` is the float's pattern as a "
        "signed 32-bit number",
        "cases": [{"bits": bits, "pixel": pixel(bits)} for bits in values.view(np.int32).tolist()],
    }


def _texts() -> dict[str, Any]:
    allowed = ["", "Pixel 8", "a  b", "Größe", "日本", "😀", "<script>", "x" * MOST_TEXT]
    refused = ["two\nlines", "tab\t", "\x1b[2J", "\x7f", "\u00a0", "\u2028", "\u202e", "\ufeff", "\ue000", "\ud83d"]
    return {
        "proves": f"text in a record or manifest: at most {MOST_TEXT} characters, no control, format, surrogate, "
        "private or unassigned ones, and no white space but the space",
        "cases": [{"text": text, "allowed": True} for text in allowed]
        + [{"text": text, "allowed": False} for text in (*refused, "x" * (MOST_TEXT + 1))],
    }


def _documents(proves: str, accepted: list[Any], edits: tuple[Edit, ...]) -> dict[str, Any]:
    documents = [document.model_dump(mode="json") for document in accepted]
    refused = [{"why": why, "at": at.split(), "json": text} for why, at, text in edits]
    return {"proves": proves, "accepted": documents, "refused": refused}


NUMBERS: tuple[Edit, ...] = (
    ("another version", "schema_version", "2"),
    ("no version", "schema_version", "true"),
    ("an unknown key", "unknown", "1"),
)


def _plan() -> dict[str, Any]:
    edits = (
        ("no run", "performance runs", "0"),
        ("no whole number", "performance runs", "1.5"),
        ("a text", "performance runs", '"10"'),
        ("infinite", "performance seconds", "1e400"),
        ("no number", "performance seconds", "NaN"),
        ("no start", "performance starts", "0"),
        ("below 0", "accuracy seed", "-1"),
        ("above 64 bits", "accuracy seed", str(2**64)),
        ("too many", "accuracy samples", "10000001"),
        ("no thread", "threads", "0"),
        ("null", "threads", "null"),
        ("an unknown key inside", "accuracy unknown", "1"),
    )
    plans = [Plan(), Plan().changed(seed=2**64 - 1, samples=0, runs=1, seconds=0.0, threads=1, starts=1)]
    return _documents("plan.json: what a harness has to accept, and what it has to refuse", plans, (*NUMBERS, *edits))


def _manifest() -> dict[str, Any]:
    shape = (1, 3, 32, 32)
    manifest = Manifest(
        target="android",
        precision="int8",
        artifact="model.pte",
        input=TensorSpec(name="z", shape=shape, dtype="float32"),
        label=TensorSpec(name="label", shape=(1,), dtype="int64", low=0, high=9),
        output=TensorSpec(name="x", shape=shape, dtype="float32", low=-1, high=1),
        checkpoint_sha256=HASH,
        quantization=None,
        parity=Parity(samples=32, seed=2**32 + 2, psnr_db=45.5, worst_psnr_db=38.25, reason=None),
        rewrites=("fold_time",),
        tool_versions={"executorch": "1.5.1"},
        needs=Needs(
            backend="xnnpack",
            runtime=Requirement(name="org.pytorch:executorch-android", least="1.5.1"),
            system=Requirement(name="Android API", least="23"),
            architectures=("arm64-v8a", "x86_64"),
            compute_units=None,
        ),
        default_plan=Plan(),
        files={"model.pte": HASH, "parity/z.f32": HASH, "parity/x.f32": HASH, "parity/label.i64": HASH},
    )
    edits = (
        ("a path that leads out", "artifact", '"../model.pte"'),
        ("an absolute path", "artifact", '"/etc/passwd"'),
        ("a reserved folder", "artifact", '"parity"'),
        ("a reserved folder", "artifact", '"contract"'),
        ("an artifact that is not among the files", "artifact", '"model.onnx"'),
        ("a listed path that leads out", "files ../x", f'"{HASH}"'),
        ("no hash", "files model.pte", '"abc"'),
        ("no files", "files", "{}"),
        ("three dimensions", "input shape", "[1, 3, 32]"),
        ("an output of another shape", "output shape", "[1, 3, 32, 16]"),
        ("another type", "input dtype", '"float16"'),
        ("labels up to no whole number", "label high", "9.5"),
        ("another time", "t", "0.5"),
        ("no parity vectors", "parity samples", "0"),
        ("a seed below 0", "parity seed", "-1"),
        ("no hash", "checkpoint_sha256", '"abc"'),
        ("no name", "target", '"<b>"'),
        ("control characters", "precision", '"a\\u001b[2J"'),
        ("no backend", "needs backend", "null"),
        ("no system", "needs system", "null"),
        ("no version", "needs runtime least", '""'),
        ("a plan without runs", "default_plan performance runs", "0"),
        ("an unknown key inside", "needs unknown", "1"),
    )
    unconditional = manifest.model_copy(update={"label": None})
    proves = "manifest.json: what a harness has to accept, and what it has to refuse"
    return _documents(proves, [manifest, unconditional], (*NUMBERS, *edits))


def _record() -> dict[str, Any]:
    condition = Condition(
        when="during", temperature_c=31.5, clock_mhz=2800.0, gpu_clock_mhz=None, gpu_load=None, power_w=3.25,
        throttled=False, thermal_state="none", thermal_headroom=0.35, battery_level=0.8, charging=False,
        foreground=True,
    )  # fmt: skip
    samples = Samples(
        count=4, height=32, width=32, channels=3, seed=2**64 - 1, u8_sha256=HASH, floats=2, f32_sha256=HASH
    )
    record = RunRecord(
        target="android", precision="int8", bundle_sha256=HASH, checkpoint_sha256=HASH, checkpoint=None,
        where="device",
        device=Device(
            name="a phone", system="Android 16 (API 36)", machine="aarch64", processor="a core", cores=8,
            memory_bytes=8_000_000_000,
        ),
        runtime=Runtime(name="executorch", version="1.5.1", backend="xnnpack"),
        threads=2, batch=1, started_at="2026-11-29T00:00:00Z", artifact_bytes=9_000_000, build_ms=None, load_ms=12.5,
        second_load_ms=3.5, first_inference_ms=9.25, latency_ms=(8.5, 8.25, 8.75), transfers=None,
        peak_memory_bytes=180_000_000, baseline_memory_bytes=120_000_000, compiled_before=None, starts=1,
        conditions=(condition,), power_mode=None,
        thermal_changes=(ThermalChange(run=0, state="none"), ThermalChange(run=2, state="light")),
        clocks_locked=None, operators=None, samples=samples,
        missing={
            "build_ms": "executorch loads the artifact without a build",
            "transfers": "executorch does not time copies separately: a latency includes them",
            "compiled_before": "executorch keeps nothing that it compiles",
            "power_mode": "the run asked for no power mode",
            "clocks_locked": "an app cannot lock the clocks",
            "operators": "executorch is not asked for the time of each operator",
            "conditions.gpu_clock_mhz": "the system does not report it",
            "conditions.gpu_load": "the system does not report it",
        },
    )  # fmt: skip
    edits = (
        ("a null without a reason", "load_ms", "null"),
        ("an empty reason", "missing build_ms", '""'),
        ("a condition's null without a reason", "missing conditions.gpu_load", '""'),
        ("a time below 0", "latency_ms", "[-1.0]"),
        ("no number", "latency_ms", "[NaN]"),
        ("no place", "where", '"moon"'),
        ("no instant", "started_at", '"yesterday"'),
        ("control characters", "device name", '"\\u001b[2J"'),
        ("no hash", "samples u8_sha256", '"abc"'),
        ("a battery above full", "conditions 0 battery_level", "80"),
        ("no moment", "conditions 0 when", '"later"'),
        ("a truth as a text", "conditions 0 foreground", '"true"'),
        ("no start", "starts", "0"),
        ("a change after the last run", "thermal_changes 1 run", "4"),
        ("changes out of order", "thermal_changes 0 run", "3"),
    )
    return _documents("record.json: what rdd-edge accepts and refuses", [record], (*NUMBERS, *edits))


def _error() -> dict[str, Any]:
    sentence = "executorch 1.5.1 cannot load model.pte: truncated"
    failure = Failure(schema_version=1, kind="ArtifactError", sentence=sentence)
    edits = (
        ("no kind", "kind", "7"),
        ("two lines", "sentence", '"two\\nlines"'),
        ("no sentence", "sentence", "null"),
    )
    proves = "error.json, which an app leaves in place of a run: what rdd-edge accepts and refuses"
    return _documents(proves, [failure], (*NUMBERS, *edits))


GOLDEN: dict[str, Callable[[], dict[str, Any]]] = {
    "words": _words, "normals": _normals, "labels": _labels, "rounding": _rounding, "text": _texts, "plan": _plan,
    "manifest": _manifest, "record": _record, "error": _error,
}  # fmt: skip
