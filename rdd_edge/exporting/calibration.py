"""Calibration noise for quantizers, at t = 1: the only noise level of a one-step student."""

from __future__ import annotations

from ..errors import UsageError
from ..portable.noise import labels, normals
from ..targets.base import CalibrationSet

__all__ = ["BUDGET_SEED", "CALIBRATION_SAMPLES", "CALIBRATION_SEED", "PARITY_SEED", "calibration_set"]

CALIBRATION_SAMPLES = 256
# Beyond 32 bits, so that no benchmark run samples from the same noise.
CALIBRATION_SEED = 2**32 + 1
PARITY_SEED = 2**32 + 2
BUDGET_SEED = 2**32 + 3  # of a search's Fréchet distance


def calibration_set(
    image_shape: tuple[int, int, int],
    classes: int | None,
    samples: int = CALIBRATION_SAMPLES,
    seed: int = CALIBRATION_SEED,
) -> CalibrationSet:
    """Samples 0 … samples - 1 of the portable noise of `seed`, with their labels.

    image_shape: (C, H, W).  classes: None for an unconditional model.  Raises UsageError for fewer than one sample.
    """
    if samples < 1:
        raise UsageError(f"calibration needs at least one sample, not {samples}")
    indices = range(samples)
    return CalibrationSet(
        z=normals(seed, indices, image_shape),
        label=None if classes is None else labels(indices, classes),
        seed=seed,
    )
