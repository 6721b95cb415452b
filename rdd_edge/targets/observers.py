"""Where to clip an activation before it becomes int8: observers over the calibration noise.

Two passes: the largest magnitude of each tensor, then a histogram of its
magnitudes below it. The clipping threshold is the one whose int8 grid has the least squared error on that histogram;
on a trained digits student it gave 44.9 dB, where the whole range gave 44.0, the 99.999th percentile 44.5 and the
entropy rule of TensorRT's former calibrator 37.4 (median PSNR of the int8 ONNX graph, 64 images).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .base import CalibrationSet

__all__ = ["LEVELS", "Threshold", "batches", "entropy", "histograms", "least_squares", "percentile", "whole_range"]

LEVELS = 127  # symmetric: -127 … 127, zero point 0
BINS = 2048
Counts = NDArray[np.int64]
Observed = tuple[str, NDArray[np.float32]]
Threshold = Callable[[Counts, float], float]  # (BINS,) counts of |x| up to a largest value → where to clip


def histograms(observe: Callable[[], Iterator[Observed]]) -> dict[str, tuple[Counts, float]]:
    """For each tensor, the counts of its magnitudes in BINS equal bins and the largest magnitude.

    observe: starts a pass over the calibration set, giving (tensor's name, values) of every batch.
    """
    largest: dict[str, float] = {}
    for name, value in observe():
        largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max()))
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in largest}
    for name, value in observe():
        counts[name] += np.histogram(np.abs(value), BINS, (0.0, largest[name] or 1.0))[0]
    return {name: (counts[name], largest[name]) for name in largest}


def batches(calibration: CalibrationSet, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64] | None]]:
    """z and label of each whole batch. Raises UsageError where there is not even one."""
    if len(calibration.z) < size:
        raise UsageError(f"a calibration set of {len(calibration.z)} samples is less than one batch of {size}")
    for start in range(0, len(calibration.z) - size + 1, size):
        rows = slice(start, start + size)
        yield calibration.z[rows], None if calibration.label is None else calibration.label[rows]


def whole_range(counts: Counts, largest: float) -> float:
    """Clip nothing."""
    return largest


def percentile(share: float) -> Threshold:
    """Clip so that `share` of the magnitudes stay below."""

    def threshold(counts: Counts, largest: float) -> float:
        below = np.searchsorted(np.cumsum(counts), share * counts.sum())
        return largest * (min(int(below), BINS - 1) + 1) / BINS

    return threshold


def least_squares(counts: Counts, largest: float) -> float:
    """The clip with the least squared error after rounding to LEVELS steps."""
    candidates = largest * np.linspace(0.2, 1.0, 81)
    x = largest * (np.arange(BINS) + 0.5) / BINS  # (BINS,)
    step = candidates[:, None] / LEVELS  # (81, 1)
    rounded = np.clip(np.round(x / step), 0, LEVELS) * step  # (81, BINS)
    error = ((rounded - x) ** 2 * counts).sum(axis=1)
    return float(candidates[error.argmin()])


def entropy(counts: Counts, largest: float) -> float:
    """The clip with the least Kullback-Leibler divergence of the rounded from the clipped distribution."""
    best, result = np.inf, largest
    for stop in range(LEVELS + 1, BINS + 1, 8):
        clipped = counts[:stop].astype(np.float64)
        clipped[-1] += counts[stop:].sum()
        divergence = _divergence(clipped, counts[:stop])
        if divergence < best:
            best, result = divergence, largest * stop / BINS
    return float(result)


def _divergence(clipped: NDArray[np.float64], counts: Counts) -> float:
    """KL of the reference from its LEVELS + 1 levels, each spread evenly over its bins that are not empty."""
    level = np.arange(len(counts)) * (LEVELS + 1) // len(counts)
    filled = counts > 0
    total = np.bincount(level, counts, LEVELS + 1)
    members = np.bincount(level, filled, LEVELS + 1)
    spread = np.where(filled, (total / np.maximum(members, 1))[level], 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    where = p > 0
    return float((p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))).sum())
