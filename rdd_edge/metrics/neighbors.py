"""Distances to nearest neighbours, computed for a block of rows at a time.

Squared distances are |x|² + |y|² - 2 x·y in float64, which is exact for pixels. At most BLOCK × N of them are held at
once. Under torchrun the ranks divide the rows, and each returns the whole result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..distributed import BLOCK, current, gather_arrays
from ..errors import DataError

COLUMNS = 4096  # rows of y that are converted to float64 at a time

Rows = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint8]


def nearest_others(x: Rows, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distances (N, k) of each row of x (N, D) to the k nearest other rows, in order, and their indices (N, k).

    Raises DataError for fewer than k + 1 rows.
    """
    if len(x) <= k:
        raise DataError(f"{len(x)} images are too few for the {k} nearest neighbors of each: give at least {k + 1}")

    def measure(index: NDArray[np.int64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        d[np.arange(len(index)), index] = np.inf  # not its own neighbour
        nearest = np.argpartition(d, k - 1, axis=1)[:, :k]
        squared = np.take_along_axis(d, nearest, axis=1)
        order = np.argsort(squared, axis=1, kind="stable")
        return np.hstack([np.take_along_axis(squared, order, axis=1), np.take_along_axis(nearest, order, axis=1)])

    found = by_row(x, x, 2 * k, measure)
    return found[:, :k], found[:, k:].astype(np.int64)


def by_row(
    x: Rows, y: Rows, width: int, measure: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """measure(i, d) for all rows of x (N, D) in blocks, (N, width).

    i: indices (n,) of the rows of a block.  d: their squared distances (n, M) to the rows of y (M, D), to overwrite.
    """
    own = current().blocks(len(x))
    lengths = np.concatenate([_lengths(part) for part in _parts(y)])
    found = np.empty((len(own), width))
    for start in range(own.start, own.stop, BLOCK):
        index = np.arange(start, min(start + BLOCK, own.stop))
        rows = x[index].astype(np.float64)
        d = np.hstack([rows @ part.astype(np.float64).T for part in _parts(y)])
        d *= -2.0
        d += lengths
        d += _lengths(rows)[:, None]
        found[index - own.start] = measure(index, np.maximum(d, 0.0, out=d))
    return np.concatenate(gather_arrays(found))


def _parts(y: Rows) -> list[Rows]:
    return [y[start : start + COLUMNS] for start in range(0, len(y), COLUMNS)]


def _lengths(x: Rows) -> NDArray[np.float64]:
    """|x|² of each row."""
    rows = x.astype(np.float64)
    lengths: NDArray[np.float64] = np.einsum("nd,nd->n", rows, rows)
    return lengths
