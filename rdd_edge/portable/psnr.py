"""Peak signal-to-noise ratio of each image against its reference.

Only NumPy, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PEAK = 2.0  # of images in [-1, 1]
IDENTICAL_DB = 200.0  # the value of identical images: JSON has no infinity


def psnr_per_image(a: NDArray[np.generic], b: NDArray[np.generic], peak: float) -> NDArray[np.float64]:
    """PSNR in dB of each image of a against b, both (N, ...); IDENTICAL_DB where they are equal."""
    result = np.empty(len(a))
    for start in range(0, len(a), 1024):
        rows = slice(start, start + 1024)
        difference = a[rows].astype(np.float64) - b[rows].astype(np.float64)
        mse = np.mean(difference**2, axis=tuple(range(1, a.ndim)))
        with np.errstate(divide="ignore"):
            result[rows] = np.minimum(10.0 * np.log10(peak**2 / mse), IDENTICAL_DB)
    return result


def median_and_worst(a: NDArray[np.generic], b: NDArray[np.generic]) -> tuple[float, float]:
    """Median and least PSNR in dB over images in [-1, 1], both (N, ...)."""
    psnr = psnr_per_image(a, b, PEAK)
    return float(np.median(psnr)), float(psnr.min())
