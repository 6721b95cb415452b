"""Calibration noise for quantizers, at t = 1: the only noise level of a one-step student."""

from __future__ import annotations

from ..errors import UsageError
from ..portable.noise import labels, normals
from ..targets.base import CalibrationSet

__all__ = ["BUDGET_SEED", "CALIBRATION_SAMPLES", "CALIBRATION_SEED", "PARITY_SEED", "calibration_set"]

CALIBRATION_SAMPLES = 256
# Above 32 bits, where nobody chooses the seed of a benchmark run, which then samples from other noise.
CALIBRATION_SEED = 2**32 + 1
PARITY_SEED = 2**32 + 2
BUDGET_SEED = 2**32 + 3  # of a search's Fréchet distance


def calibration_set(
    image_shape: tuple[int, int, int], classes: int | None, samples: int = CALIBRATION_SAMPLES
) -> CalibrationSet:
    """Samples 0 … samples - 1 of the portable noise of CALIBRATION_SEED, with their labels.

    image_shape: (C, H, W).  classes: None for an unconditional model.  Raises UsageError for fewer than one sample.
    """
    if samples < 1:
        raise UsageError(f"calibration needs at least one sample, not {samples}")
    indices = range(samples)
    label = None if classes is None else labels(indices, classes)
    return CalibrationSet(normals(CALIBRATION_SEED, indices, image_shape), label, CALIBRATION_SEED)
