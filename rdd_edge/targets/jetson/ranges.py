"""Where to clip an activation before it becomes int8: observers over the calibration noise.

Two passes over the float32 graph in ONNX Runtime: the largest magnitude of each tensor, then a histogram of its
magnitudes below it. The clipping threshold is the one whose int8 grid has the least squared error on that histogram;
on trained one-step students it beats the range itself, percentiles and TensorRT's entropy rule (benchmarks of PSNR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...quiet import import_or_explain
from ..base import CalibrationSet

__all__ = ["LEVELS", "Threshold", "entropy", "histograms", "least_squares", "percentile", "whole_range"]

LEVELS = 127  # symmetric: -127 … 127, zero point 0
BINS = 2048
Counts = NDArray[np.int64]
Threshold = Callable[[Counts, float], float]  # (BINS,) counts of |x| up to a largest value → where to clip


def histograms(
    proto: Any, tensors: Sequence[str], calibration: CalibrationSet, batch: int
) -> dict[str, tuple[Counts, float]]:
    """For each tensor, the counts of its magnitudes in BINS equal bins and the largest magnitude."""
    largest = dict.fromkeys(tensors, 0.0)
    for name, value in _observe(proto, tensors, calibration, batch):
        largest[name] = max(largest[name], float(np.abs(value).max()))
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in tensors}
    for name, value in _observe(proto, tensors, calibration, batch):
        counts[name] += np.histogram(np.abs(value), BINS, (0.0, largest[name] or 1.0))[0]
    return {name: (counts[name], largest[name]) for name in tensors}


def _observe(
    proto: Any, tensors: Sequence[str], calibration: CalibrationSet, batch: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    session = _session(proto, tensors)
    names = [value.name for value in session.get_inputs()]
    for start in range(0, len(calibration.z) - batch + 1, batch):
        feeds = {names[0]: calibration.z[start : start + batch]}
        if calibration.label is not None:
            feeds[names[1]] = calibration.label[start : start + batch]
        yield from zip(tensors, session.run(list(tensors), feeds), strict=True)


def _session(proto: Any, tensors: Sequence[str]) -> Any:
    """A session that also gives these tensors out. The graph's own inputs need no adding."""
    import onnx

    ort = import_or_explain("onnxruntime", "calibration", "jetson")
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    present = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])


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
    """The clip with the least Kullback-Leibler divergence of the rounded from the clipped distribution (8-bit TensorRT)."""
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
