"""Inception score (Salimans et al. 2016): exp of the mean KL from each image's class probabilities to their mean.

Over contiguous splits of the samples, as in the authors' code: the score is the mean over splits, beside their spread.
Only sums per split are stored, so that parts of the samples can be added on any rank and merged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..distributed import current, gather_arrays
from ..errors import DataError, UsageError

__all__ = ["InceptionScore", "InceptionScoreAccumulator", "gather_score"]


@dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation (of the population) over the splits."""

    mean: float
    spread: float
    splits: int


class InceptionScoreAccumulator:
    """Sums over the class probabilities of `count` samples in `splits` contiguous parts."""

    def __init__(self, count: int, splits: int = 10) -> None:
        if not 1 <= splits <= count:
            raise DataError(f"{count} samples do not give an Inception score in {splits} splits: give at least as many")
        self.splits = splits
        self._edges = np.arange(splits + 1) * count // splits
        self._seen = np.zeros(splits, dtype=np.int64)
        self._negentropy = np.zeros(splits)  # of Σ_i Σ_j p_ij log p_ij
        self._mass: NDArray[np.float64] | None = None  # (splits, classes)

    def add(self, start: int, probabilities: NDArray[np.float32]) -> None:
        """Add the probabilities (n, classes) of the samples `start` … `start` + n - 1."""
        if start < 0 or start + len(probabilities) > self._edges[-1]:
            raise UsageError(
                f"samples {start} … {start + len(probabilities) - 1} are not among the {self._edges[-1]} of the score"
            )
        p = probabilities.astype(np.float64)
        terms = np.where(p > 0.0, p * np.log(np.where(p > 0.0, p, 1.0)), 0.0).sum(axis=1)
        split = np.searchsorted(self._edges, np.arange(start, start + len(p)), side="right") - 1
        if self._mass is None:
            self._mass = np.zeros((self.splits, p.shape[1]))
        for part in np.unique(split):
            rows = split == part
            self._seen[part] += rows.sum()
            self._negentropy[part] += terms[rows].sum()
            self._mass[part] += p[rows].sum(axis=0)

    def merge(self, other: InceptionScoreAccumulator) -> None:
        """Add the samples of another accumulator of the same count and splits."""
        if not np.array_equal(self._edges, other._edges):
            raise UsageError("Inception scores of different counts or splits cannot be merged")
        if other._mass is not None:
            self._mass = other._mass.copy() if self._mass is None else self._mass + other._mass
            self._seen += other._seen
            self._negentropy += other._negentropy

    def empty(self) -> InceptionScoreAccumulator:
        """An accumulator of the same count and splits without samples."""
        return InceptionScoreAccumulator(int(self._edges[-1]), self.splits)

    def state(self) -> NDArray[np.float64]:
        """The sums as one vector (splits · (2 + classes)), for other processes; empty before the first sample."""
        if self._mass is None:
            return np.zeros(0)
        return np.column_stack([self._seen, self._negentropy, self._mass]).ravel()

    def of_state(self, state: NDArray[np.float64]) -> InceptionScoreAccumulator:
        """The accumulator of the same count and splits with this `state`."""
        accumulator = self.empty()
        if len(state):
            sums = state.reshape(self.splits, -1)
            accumulator._seen, accumulator._negentropy, accumulator._mass = (
                sums[:, 0].astype(np.int64),
                sums[:, 1].copy(),
                sums[:, 2:].copy(),
            )
        return accumulator

    def result(self) -> InceptionScore:
        """The score. Raises DataError where samples are missing or were added twice."""
        expected = np.diff(self._edges)
        if self._mass is None or not np.array_equal(self._seen, expected):
            raise DataError(f"{self._seen.sum()} of {expected.sum()} samples were added to the Inception score")
        marginal = self._mass / expected[:, None]
        entropy = np.where(marginal > 0.0, marginal * np.log(np.where(marginal > 0.0, marginal, 1.0)), 0.0).sum(axis=1)
        scores = np.exp(self._negentropy / expected - entropy)
        return InceptionScore(float(scores.mean()), float(scores.std()), self.splits)


def gather_score(own: InceptionScoreAccumulator) -> InceptionScoreAccumulator:
    """The accumulators of all ranks merged, on each rank. They must have the same count and splits."""
    if current().size == 1:
        return own
    merged = own.empty()
    for state in gather_arrays(own.state()):
        merged.merge(own.of_state(state))
    return merged
