"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, Eq. 6).

Mean and covariance are accumulated in one pass over batches, in float64, by the update of Chan, Golub and LeVeque
(1979), which avoids cancellation and whose partial results can be merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..distributed import current, gather_arrays
from ..errors import DataError, UsageError

JOINED_ROWS = 4096

Features = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Mean (D,) and unbiased covariance (D, D) of `count` feature vectors, float64."""

    mean: NDArray[np.float64]
    cov: NDArray[np.float64]
    count: int

    @staticmethod
    def of(features: Features) -> Statistics:
        """Statistics of features (N, D). Raises DataError for fewer than two or for values that are not finite."""
        return StatisticsAccumulator().add_all(features[i : i + 4096] for i in range(0, len(features), 4096)).result()

    def caution(self) -> str | None:
        """A warning that the samples are too few for a distance, or None."""
        if self.count > len(self.mean):
            return None
        return (
            f"{self.count} samples give a covariance of {len(self.mean)} features at most rank {self.count - 1}: "
            "the distance is biased upwards, and compares only with others of the same number of samples"
        )


class StatisticsAccumulator:
    """Count, mean and sum of outer products of deviations, over all batches added so far.

    Batches are joined once they have JOINED_ROWS rows, since each join passes over D × D numbers several times.
    """

    def __init__(self) -> None:
        self._waiting: list[Features] = []
        self._joined = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))

    @property
    def count(self) -> int:
        return self._joined + sum(map(len, self._waiting))

    def add(self, batch: Features) -> None:
        """Add features (n, D). Raises DataError where one is NaN or infinite, UsageError for a different D."""
        if len(batch) == 0:
            return
        seen = self.count
        if not np.isfinite(batch).all():
            raise DataError(f"features {seen} … {seen + len(batch) - 1} contain NaN or infinity")
        if seen and batch.shape[1] != self._size():
            raise UsageError(f"features of {batch.shape[1]} dimensions do not join statistics of {self._size()}")
        self._waiting.append(batch.copy())
        if sum(map(len, self._waiting)) >= JOINED_ROWS:
            self._join_waiting()

    def add_all(self, batches: Iterable[Features]) -> StatisticsAccumulator:
        for batch in batches:
            self.add(batch)
        return self

    def result(self) -> Statistics:
        """Raises DataError for fewer than two samples."""
        if self.count < 2:
            raise DataError(f"{self.count} samples have no covariance: give at least two, better more than features")
        self._join_waiting()
        return Statistics(self._mean.copy(), self._scatter / (self.count - 1), self.count)

    def state(self) -> NDArray[np.float64]:
        """Count, mean and scatter as one vector (1 + D + D²), for other processes; empty before the first batch."""
        self._join_waiting()
        return np.concatenate([[float(self.count)], self._mean, self._scatter.ravel()]) if self.count else np.zeros(0)

    def add_state(self, state: NDArray[np.float64]) -> None:
        """Add the samples of another accumulator by its `state`."""
        if len(state):
            size = math.isqrt(len(state) - 1)  # D + D² = (D + ½)² - ¼
            self.add_moments(int(state[0]), state[1 : 1 + size], state[1 + size :].reshape(size, size))

    def _size(self) -> int:
        return self._waiting[0].shape[1] if self._waiting else len(self._mean)

    def _join_waiting(self) -> None:
        if not self._waiting:
            return
        x = np.concatenate(self._waiting).astype(np.float64)
        self._waiting = []
        mean = x.mean(axis=0)
        x -= mean
        self.add_moments(len(x), mean, x.T @ x)  # NumPy computes it as a symmetric product

    def add_moments(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        """Add `count` samples by their mean (D,) and the sum of outer products of their deviations (D, D)."""
        self._join_waiting()
        if self._joined == 0:
            self._joined, self._mean, self._scatter = count, mean.copy(), scatter.copy()
            return
        if len(mean) != len(self._mean):
            raise UsageError(f"features of {len(mean)} dimensions do not join statistics of {len(self._mean)}")
        total = self._joined + count
        delta = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(delta, delta) * (self._joined * count / total)
        self._mean += delta * (count / total)
        self._joined = total


def gather_statistics(own: StatisticsAccumulator) -> StatisticsAccumulator:
    """The accumulators of all ranks merged in rank order, on each rank; a rank without samples must take part."""
    if current().size == 1:
        return own
    merged = StatisticsAccumulator()
    for state in gather_arrays(own.state()):
        merged.add_state(state)
    return merged


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|μ_a - μ_b|² + tr(Σ_a) + tr(Σ_b) - 2 tr((Σ_a Σ_b)^½), at least 0.

    With Σ_a = R Rᵀ the last trace is that of the root of Rᵀ Σ_b R, which is symmetric. So two symmetric eigenproblems
    replace the root of an unsymmetric matrix with its complex residue, and covariances may be singular.
    Raises UsageError for different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise UsageError(f"features of {len(a.mean)} and {len(b.mean)} dimensions have no Fréchet distance")
    first, second = (a, b) if a.count <= b.count else (b, a)  # the root of the lower rank
    deviations, directions = span(first.cov)
    r = directions * deviations  # (D, r)
    cross = np.sqrt(np.linalg.eigvalsh(r.T @ second.cov @ r).clip(min=0.0)).sum()
    delta = a.mean - b.mean
    return max(float(delta @ delta + np.trace(a.cov) + np.trace(b.cov) - 2.0 * cross), 0.0)


def span(cov: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviations (r,) and their directions (D, r), r the numerical rank: roots amplify rounding errors."""
    values, vectors = np.linalg.eigh(cov)
    keep = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return np.sqrt(values[keep]), vectors[:, keep]
