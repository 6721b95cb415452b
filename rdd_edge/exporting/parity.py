"""The noise of an export, for calibration and for parity, and the artifact's images compared with the student's.

All noise is at t = 1, the only noise level of a one-step student.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..benchmarking.isolation import run_artifact
from ..benchmarking.verify import THREADS
from ..bundle import Parity
from ..diffusion.network import one_step
from ..errors import UsageError
from ..files import write_bytes
from ..portable.noise import inputs
from ..portable.psnr import median_and_worst
from ..targets.base import CalibrationSet, ExportSpec, Precision, Target

CALIBRATION_SAMPLES = 256
PARITY_SAMPLES = 32
# Above 32 bits, so that benchmark runs, whose seeds are usually small, sample from other noise.
CALIBRATION_SEED, PARITY_SEED, BUDGET_SEED = (2**32 + i for i in (1, 2, 3))
BATCH = 8  # of the student; affects memory, not results


def calibration_set(
    image_shape: tuple[int, int, int], classes: int | None, samples: int = CALIBRATION_SAMPLES
) -> CalibrationSet:
    """Samples 0 … samples - 1 of the portable noise of CALIBRATION_SEED, with their labels, for a quantizer.

    image_shape: (C, H, W).  classes: None for an unconditional model.  Raises UsageError for fewer than one sample.
    """
    if samples < 1:
        raise UsageError(f"calibration needs at least one sample, not {samples}")
    return CalibrationSet(*inputs(CALIBRATION_SEED, range(samples), image_shape, classes), CALIBRATION_SEED)


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
    z, label = inputs(seed, range(samples), image_shape, classes)
    images = []
    for start in range(0, samples, BATCH):
        rows = slice(start, start + BATCH)
        with torch.no_grad():
            batch_label = None if label is None else torch.from_numpy(label[rows])
            images.append(one_step(unet, torch.from_numpy(z[rows]), batch_label).numpy())
    return Vectors(z, label, np.concatenate(images))


def write_vectors(folder: Path, vectors: Vectors) -> None:
    """z.f32, x.f32 and, for a conditional model, label.i64, all little-endian."""
    write_bytes(folder / "z.f32", vectors.z.astype("<f4").tobytes())
    write_bytes(folder / "x.f32", vectors.x.astype("<f4").tobytes())
    if vectors.label is not None:
        write_bytes(folder / "label.i64", vectors.label.astype("<i8").tobytes())


def of_device(parity: Parity, precision: Precision) -> Parity:
    """A parity measured on this machine, without its figures where they would not be a device's."""
    if parity.psnr_db is None or precision.unlike_device is None:
        return parity
    reason = f"{precision.unlike_device}; this machine's kernels give {parity.psnr_db:.1f} dB"
    return parity.model_copy(update={"psnr_db": None, "worst_psnr_db": None, "reason": reason})


def measure(target: Target, artifact: Path, spec: ExportSpec, vectors: Vectors) -> Parity:
    """Run the artifact on the vectors of PARITY_SEED in a child process.

    Raises ArtifactError where it does not run, or breaks a rule of its runtime (BrokenRules).
    """
    x = run_artifact(target.name, artifact, spec, THREADS, vectors.z, vectors.label)
    median, worst = (None, None) if x is None else median_and_worst(x, vectors.x)
    reason = target.cannot_run(spec.precision) if x is None else None
    return Parity(samples=len(vectors.z), seed=PARITY_SEED, psnr_db=median, worst_psnr_db=worst, reason=reason)
