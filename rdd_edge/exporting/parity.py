"""Parity: the artifact's images from its runtime compared with the student's images of the same noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..benchmarking.verify import psnr_to_student
from ..bundle import Parity
from ..diffusion.checkpoint import one_step
from ..files import write_bytes
from ..portable.noise import labels, normals
from ..targets import load_target
from ..targets.base import ExportSpec
from .calibration import PARITY_SEED

__all__ = ["PARITY_SAMPLES", "Vectors", "make_vectors", "measure", "write_vectors"]

PARITY_SAMPLES = 32
BATCH = 8  # of the student; affects memory, not results


@dataclass(frozen=True)
class Vectors:
    """Noise, labels and the student's images of them."""

    z: NDArray[np.float32]  # (N, C, H, W)
    label: NDArray[np.int64] | None  # (N,)
    x: NDArray[np.float32]  # (N, C, H, W), in [-1, 1]


def make_vectors(
    unet: nn.Module,
    image_shape: tuple[int, int, int],
    classes: int | None,
    samples: int = PARITY_SAMPLES,
    seed: int = PARITY_SEED,
) -> Vectors:
    """The student's images for the first `samples` of the noise of `seed`."""
    z = normals(seed, range(samples), image_shape)
    label = None if classes is None else labels(range(samples), classes)
    return Vectors(z, label, np.concatenate(list(_student(unet, z, label))))


def _student(unet: nn.Module, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(z), BATCH):
        rows = slice(start, start + BATCH)
        with torch.no_grad():
            classes = None if label is None else torch.from_numpy(label[rows])
            yield one_step(unet, torch.from_numpy(z[rows]), classes).numpy()


def write_vectors(folder: Path, vectors: Vectors) -> None:
    """z.f32, x.f32 and, for a conditional model, label.i64, all little-endian."""
    write_bytes(folder / "z.f32", vectors.z.astype("<f4").tobytes())
    write_bytes(folder / "x.f32", vectors.x.astype("<f4").tobytes())
    if vectors.label is not None:
        write_bytes(folder / "label.i64", vectors.label.astype("<i8").tobytes())


def measure(target: str, artifact: Path, spec: ExportSpec, vectors: Vectors, seed: int = PARITY_SEED) -> Parity:
    """Run the artifact in a child process. Raises ArtifactError where it does not run."""
    compared = psnr_to_student(target, artifact, spec, vectors.z, vectors.label, vectors.x)
    if compared is None:
        reason = load_target(target).cannot_run(spec.precision)
        return Parity(samples=len(vectors.z), seed=seed, psnr_db=None, worst_psnr_db=None, reason=reason)
    psnr, _ = compared
    median, worst = float(np.median(psnr)), float(psnr.min())
    return Parity(samples=len(psnr), seed=seed, psnr_db=median, worst_psnr_db=worst, reason=None)
