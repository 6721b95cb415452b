"""A bundle: a folder with one artifact for one target, and everything needed to run, check and trace it.

manifest.json    this schema; its SHA-256 is the bundle's identity
<artifact>       model.pte, model.mlpackage/, model.onnx, …
parity/          z.f32, x.f32 (and label.i64): inputs and the student's own outputs for them, little-endian, N C H W
harness/         where the target has one
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from .errors import CorruptError, MissingError
from .files import read_model, tree_sha256
from .results import Frozen, Plan, Sha256, UInt64

__all__ = ["MANIFEST", "Bundle", "Calibration", "Manifest", "Parity", "Quantization", "TensorSpec", "read_bundle"]

MANIFEST = "manifest.json"


class TensorSpec(Frozen):
    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int32", "int64"]
    low: float | None = None  # of the values; None: unbounded
    high: float | None = None


class Calibration(Frozen):
    """Noise at t = 1 that the observers saw, disjoint from the samples of any bench by its seed."""

    samples: int = Field(ge=1)
    seed: UInt64


class Quantization(Frozen):
    calibration: Calibration | None  # None: weights only
    keep: tuple[str, ...]  # layers left in higher precision
    int8_macs_share: Annotated[float, Field(ge=0, le=1)] | None  # of all multiplications of convolutions and linears


class Parity(Frozen):
    """The check at the end of an export; psnr_db is None where nothing on that machine could run the artifact."""

    samples: int = Field(ge=1)
    seed: UInt64
    psnr_db: float | None  # median over images, peak 2.0, before rounding to uint8
    worst_psnr_db: float | None
    reason: str | None  # why psnr_db is None


class Manifest(Frozen):
    schema_version: Literal[1] = 1
    target: str
    precision: str
    artifact: str  # relative path of a file or a folder
    input: TensorSpec
    label: TensorSpec | None
    output: TensorSpec
    schedule: Literal["cosine"] = "cosine"
    t: Literal[1.0] = 1.0
    checkpoint_sha256: Sha256  # of the student's weights file
    quantization: Quantization | None
    parity: Parity
    rewrites: tuple[str, ...]
    tool_versions: dict[str, str]
    default_plan: Plan
    files: dict[str, Sha256]  # every file but the manifest, by relative POSIX path

    @field_validator("artifact")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or value in ("", "."):
            raise ValueError("must be a path inside the bundle")
        return value


class Bundle(Frozen):
    """A bundle whose files were checked against their hashes."""

    folder: Path
    manifest: Manifest
    sha256: Sha256

    @property
    def artifact(self) -> Path:
        return self.folder / self.manifest.artifact

    @property
    def artifact_bytes(self) -> int:
        """Size of the artifact, all its files together."""
        if self.artifact.is_file():
            return self.artifact.stat().st_size
        return sum(path.stat().st_size for path in self.artifact.rglob("*") if path.is_file())

    def parity_vectors(self) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.float32]]:
        """z, label (None for an unconditional model) and the student's x, each (N, ...)."""
        m, parity = self.manifest, self.folder / "parity"
        z = np.fromfile(parity / "z.f32", dtype="<f4").reshape(-1, *m.input.shape[1:])
        x = np.fromfile(parity / "x.f32", dtype="<f4").reshape(-1, *m.output.shape[1:])
        label = np.fromfile(parity / "label.i64", dtype="<i8") if m.label else None
        return z, label, x


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and check every file's hash.

    Raises MissingError where there is no bundle, CorruptError where one is truncated, changed or has extra files.
    """
    if not (folder / MANIFEST).is_file():
        raise MissingError(f"{folder} is not a bundle: it has no {MANIFEST}")
    manifest = read_model(folder / MANIFEST, Manifest)
    if any(path.is_symlink() for path in folder.rglob("*")):
        raise CorruptError(f"{folder} holds a symbolic link, and a bundle has none")
    found = tree_sha256(folder)
    identity = found.pop(MANIFEST)
    for name, expected in manifest.files.items():
        if name not in found:
            raise CorruptError(f"{folder / name} is missing from the bundle")
        if found[name] != expected:
            raise CorruptError(f"{folder / name} is not the file its manifest names: its SHA-256 differs")
    if extra := sorted(set(found) - set(manifest.files)):
        raise CorruptError(f"{folder / extra[0]} is not named by the bundle's manifest")
    if not (folder / manifest.artifact).exists():
        raise CorruptError(f"{folder / manifest.artifact}, the artifact, is missing from the bundle")
    return Bundle(folder=folder, manifest=manifest, sha256=identity)
