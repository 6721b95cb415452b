"""Ranges of tensors: the clipping of activations for int8, and overflow in float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError
from .base import CalibrationSet

HALF_MAX = 65504.0  # the largest finite float16
SMALLEST_SCALE = 2.0**-14  # the smallest normal float16: a smaller float16 scale loses precision
LEVELS = 127  # of symmetric int8: -127 … 127, zero point 0
BINS = 2048
Counts = NDArray[np.int64]
Named = Iterable[tuple[str, NDArray[np.float32]]]


def clips(observe: Callable[..., Named], calibration: CalibrationSet, batch: int) -> dict[str, float]:
    """For each tensor, the magnitude at which to clip it for int8 with the least squared error.

    Two passes: the largest magnitude of each tensor, then a histogram of its magnitudes. On a trained digits student,
    the median PSNR of the int8 ONNX graph over 64 images was 44.9 dB with least squares, 44.0 with the whole range,
    44.5 with the 99.999th percentile, and 37.4 with the entropy rule of TensorRT's former calibrator.

    observe: (name, values) of each tensor for the inputs of one batch, z [, label].
    """

    def values() -> Named:
        return chain.from_iterable(observe(*inputs) for inputs in calibration.batches(batch))

    return {name: least_squares(counts, largest) for name, (counts, largest) in histograms(values).items()}


def largest_magnitudes(observe: Callable[..., Named], calibration: CalibrationSet, batch: int) -> dict[str, float]:
    """The largest magnitude of each tensor; arguments as of `clips`."""
    return _largest(chain.from_iterable(observe(*inputs) for inputs in calibration.batches(batch)))


def histograms(values: Callable[[], Named]) -> dict[str, tuple[Counts, float]]:
    """For each tensor, the counts of its magnitudes in BINS equal bins, and the largest magnitude.

    values: starts a pass over the calibration set and returns (name, values) of each tensor of each batch.
    """
    largest = _largest(values())
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in largest}
    for name, value in values():
        counts[name] += np.histogram(np.abs(value), BINS, (0.0, largest[name] or 1.0))[0]
    return {name: (counts[name], largest[name]) for name in largest}


def _largest(values: Named) -> dict[str, float]:
    largest: dict[str, float] = {}
    for name, value in values:
        largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max()))
    return largest


def least_squares(counts: Counts, largest: float) -> float:
    """The clip with the least squared error after rounding to LEVELS steps."""
    candidates = largest * np.linspace(0.2, 1.0, 81)
    x = largest * (np.arange(BINS) + 0.5) / BINS  # (BINS,)
    step = candidates[:, None] / LEVELS  # (81, 1)
    rounded = np.clip(np.round(x / step), 0, LEVELS) * step  # (81, BINS)
    error = ((rounded - x) ** 2 * counts).sum(axis=1)
    return float(candidates[error.argmin()])


def magnitude(value: NDArray[Any]) -> float:
    """The largest magnitude of an array, 0 where it is empty; NaN counts as infinity."""
    largest = float(np.abs(value).max(initial=0))
    return largest if largest == largest else float("inf")


def refuse_overflow(artifact: Path, largest: dict[str, float]) -> None:
    """Raise ArtifactError, which names the first tensor, where the magnitude of a float16 tensor exceeds HALF_MAX.

    A device shows such an image as black.  largest: by name, in the order of computation.
    """
    for name, value in largest.items():
        if not value <= HALF_MAX:
            raise ArtifactError(
                f"{artifact} overflows float16, whose maximum is {HALF_MAX:g}: {name} reaches {value:g}; "
                "export it as fp32, or train a student with smaller activations"
            )
