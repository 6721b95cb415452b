"""A bundle: a folder with an artifact for one target, and what is needed to run, verify and trace it.

manifest.json    this schema; its SHA-256 is the bundle's identity
<artifact>       model.pte, model.mlpackage/, model.onnx, …
README.md        for who builds an app with it: inputs, scaling, classes, code that loads and runs the artifact
parity/          z.f32, x.f32 (and label.i64): inputs and the student's outputs, little-endian, (N, C, H, W)
contract/        golden vectors of noise and rounding, and the JSON Schemas of what a device reads and writes
harness/         the program that benchmarks the bundle on a device, if the target has one
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from .diffusion.conversion import Conversion
from .errors import CorruptError, MissingError, UsageError
from .portable.hashes import check_files, sha256_of
from .reading.documents import read_model
from .schema import Decibels, Frozen, Name, Number, Sha256, Side, Text, UInt64, Version1

MANIFEST = "manifest.json"


class PerformancePlan(Frozen):
    """Timed runs at the artifact's batch size: after the warm-up, at least `runs` and at least `seconds`.

    For the seconds' sake a start times no more than 1,000,000 runs.

    The default follows MLPerf Mobile, QUICK its quick mode.
    """

    warmup: int = Field(default=10, ge=0, le=1_000_000)
    runs: int = Field(default=1024, ge=1, le=10_000_000)
    seconds: float = Field(default=60.0, ge=0, le=86_400)
    starts: int = Field(default=3, ge=1, le=100)  # of the process that is timed, on this machine; a device starts once

    def share(self) -> PerformancePlan:
        """What is left to each start."""
        runs = -(-self.runs // self.starts)
        return PerformancePlan(warmup=self.warmup, runs=runs, seconds=self.seconds / self.starts, starts=1)


QUICK = PerformancePlan(runs=128, seconds=10.0, starts=2)


class AccuracyPlan(Frozen):
    """Samples 0 … samples - 1 of the noise of `seed`."""

    samples: int = Field(default=2000, ge=0, le=10_000_000)
    seed: UInt64 = 0
    floats: int = Field(default=256, ge=0, le=10_000_000)  # first samples that are also kept before rounding


class Plan(Frozen):
    """What a benchmark run has to do: timed runs, samples and CPU threads."""

    schema_version: Version1 = 1
    performance: PerformancePlan = PerformancePlan()
    accuracy: AccuracyPlan = AccuracyPlan()
    threads: int = Field(default=2, ge=1, le=1024)

    def changed(
        self,
        *,
        samples: int | None = None,
        seed: int | None = None,
        runs: int | None = None,
        seconds: float | None = None,
        threads: int | None = None,
        starts: int | None = None,
    ) -> Plan:
        """A copy with the values that are not None. Raises UsageError for a value out of range."""
        accuracy = {"samples": samples, "seed": seed}
        performance = {"runs": runs, "seconds": seconds, "starts": starts}
        values = self.model_dump()
        values["accuracy"] |= {name: value for name, value in accuracy.items() if value is not None}
        values["performance"] |= {name: value for name, value in performance.items() if value is not None}
        values["threads"] = self.threads if threads is None else threads
        try:
            return Plan.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"{first['loc'][-1]} {first['input']}: {first['msg']}") from None


class TensorSpec(Frozen):
    """An input or output of the artifact."""

    name: Name
    shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=4)]
    dtype: Literal["float32", "int32", "int64"]
    low: Number | None = None  # of the values; None: unbounded
    high: Number | None = None


class Calibration(Frozen):
    """Noise at t = 1 that calibrated the quantizer; its seed is that of no benchmark run."""

    samples: int = Field(ge=1, le=10_000_000)
    seed: UInt64


class BudgetRecord(Frozen):
    """The quality required of mixed precision, and what the artifact reached on `samples` images."""

    kind: Literal["psnr_db", "fd_rise"]  # median PSNR to the student; relative rise of its Fréchet distance
    required: Number
    reached: Number
    samples: int = Field(ge=1, le=10_000_000)


class Quantization(Frozen):
    calibration: Calibration | None  # None: weights only
    keep: tuple[Text, ...]  # layers left in higher precision
    int8_macs_fraction: Annotated[float, Field(ge=0, le=1)] | None  # in 8 bits, of all multiplications
    budget: BudgetRecord | None  # None: no search for the layers to keep


class Parity(Frozen):
    """The check at the end of an export.

    psnr_db is None where nothing on that machine could run the artifact as a device would.
    """

    samples: int = Field(ge=1, le=10_000_000)
    seed: UInt64
    psnr_db: Decibels | None  # median over images, peak 2.0, before rounding to uint8
    worst_psnr_db: Decibels | None
    reason: Text | None  # why psnr_db is None
    low_allowed: bool = False  # whether the export was told to keep an artifact below its precision's parity


class Requirement(Frozen):
    """Something that has to be on a device, from a version on."""

    name: Annotated[Text, Field(min_length=1)]
    least: Annotated[Text, Field(min_length=1)]
    below: Text | None = None  # the first version that does not do; None: none is known


class Needs(Frozen):
    """What a device needs to run the artifact."""

    backend: Name  # of the runtime, e.g. xnnpack
    runtime: Requirement  # e.g. org.pytorch:executorch-android from 1.5.1 on
    system: Requirement  # e.g. iOS from 17 on; of Android the API level, which is an app's minSdk
    architectures: tuple[Text, ...]  # for which the runtime exists, in the system's words, e.g. arm64-v8a
    compute_units: Text | None  # that the app has to ask for, e.g. all; None: the runtime offers no choice


class Manifest(Frozen):
    """manifest.json."""

    schema_version: Version1 = 1
    target: Name
    precision: Name
    artifact: Text  # relative path of a file or a folder
    input: TensorSpec
    label: TensorSpec | None
    output: TensorSpec
    schedule: Literal["cosine", "own"] = "cosine"  # own: that of the foreign student in `conversion`
    t: Annotated[float, Field(ge=1, le=1)] = 1.0  # the input is noise alone
    class_names: tuple[Text, ...] | None = None  # by label; None: unconditional, or not known
    conversion: Conversion | None = None  # None: a student of rdd-edge, which predicts the image at t = 1
    checkpoint_sha256: Sha256  # of the student's weights file
    quantization: Quantization | None
    parity: Parity
    rewrites: tuple[Text, ...]
    tool_versions: dict[Text, Text]
    needs: Needs
    default_plan: Plan
    files: dict[Text, Sha256]  # of every file except the manifest, by relative POSIX path

    @model_validator(mode="after")
    def _valid_paths(self) -> Manifest:
        for name in (self.artifact, *self.files):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or name in ("", ".", MANIFEST) or str(path) != name:
                raise ValueError(f"{name!r} is not a relative path inside the bundle")
        if PurePosixPath(self.artifact).parts[0] in ("parity", "contract", "harness"):
            raise ValueError(f"artifact: {self.artifact} is in a folder reserved for other files")
        if not any(name == self.artifact or name.startswith(f"{self.artifact}/") for name in self.files):
            raise ValueError(f"artifact: {self.artifact} is not among the files")
        return self

    @model_validator(mode="after")
    def _valid_tensors(self) -> Manifest:
        if len(self.input.shape) != 4 or self.output.shape != self.input.shape:
            raise ValueError("input and output must have the same shape (N, C, H, W)")
        if self.input.dtype != "float32" or self.output.dtype != "float32":
            raise ValueError("input and output must be float32")
        if self.label is not None:
            high = self.label.high
            if self.label.shape != self.input.shape[:1] or self.label.low != 0 or high is None or high != int(high):
                raise ValueError("label must have shape (N,) and range from 0 to an integer")
            if self.label.dtype == "float32" or not 0 <= high < 2**31:
                raise ValueError("label must be an integer below 2**31")
        if self.class_names is not None and (self.label is None or self.label.high != len(self.class_names) - 1):
            raise ValueError("class_names must be the names of all labels")
        if self.parity.psnr_db is None and not self.parity.reason:
            raise ValueError("parity: psnr_db is null and no reason is given")
        return self


class Bundle(Frozen):
    """A bundle whose files match their hashes."""

    folder: Path
    manifest: Manifest
    sha256: Sha256

    @property
    def artifact(self) -> Path:
        """File or folder of the artifact."""
        return self.folder / self.manifest.artifact

    @property
    def artifact_bytes(self) -> int:
        """Size of the artifact, over all its files."""
        name = self.manifest.artifact
        files = [file for file in self.manifest.files if f"{file}/".startswith(f"{name}/")]
        return sum((self.folder / file).stat().st_size for file in files)

    def parity_vectors(self) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.float32]]:
        """z (N, C, H, W), label (N,) or None for an unconditional model, and the student's x (N, C, H, W).

        Raises CorruptError for a file of the wrong size.
        """
        m = self.manifest
        shape = (m.parity.samples, *m.input.shape[1:])
        z = self._vector("z.f32", "<f4", shape).astype(np.float32)
        x = self._vector("x.f32", "<f4", shape).astype(np.float32)
        label = self._vector("label.i64", "<i8", shape[:1]).astype(np.int64) if m.label else None
        return z, label, x

    def _vector(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        path = self.folder / "parity" / name
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not path.is_file() or path.stat().st_size != size:
            raise CorruptError(f"{path} does not hold the {shape[0]} samples that the manifest gives")
        return np.fromfile(path, dtype).reshape(shape)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and check every file's hash.

    Raises MissingError where there is no bundle, CorruptError for a file that is missing, changed or foreign. What a
    system leaves in a folder that it opens, such as .DS_Store, is ignored.
    """
    if not os.path.isfile(folder / MANIFEST):
        raise MissingError(f"{folder} is not a bundle: it has no {MANIFEST}")
    manifest = read_model(folder / MANIFEST, Manifest)
    check_files(folder, manifest.files, MANIFEST)
    return Bundle(folder=folder, manifest=manifest, sha256=sha256_of(folder / MANIFEST))
