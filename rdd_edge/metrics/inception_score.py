"""Inception score (Salimans et al. 2016): exp of the mean KL from each image's class probabilities to their mean.

The samples are divided into contiguous splits, as in the authors' code; the score is the mean over the splits, reported
with their spread. Only sums per split are stored, so that any rank can add a part of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..distributed import current, gather_arrays
from ..errors import DataError, UsageError


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
        self.count, self.splits = count, splits
        self._edges = np.arange(splits + 1) * count // splits
        # (splits, 2 + classes): the number of samples, Σ_i Σ_j p_ij log p_ij and Σ_i p_i; no classes before the first
        self._sums = np.zeros((splits, 0))

    def add(self, start: int, probabilities: NDArray[np.float32]) -> None:
        """Add the probabilities (n, classes) of the samples `start` … `start` + n - 1."""
        if start < 0 or start + len(probabilities) > self._edges[-1]:
            raise UsageError(
                f"samples {start} … {start + len(probabilities) - 1} are not among the {self._edges[-1]} of the score"
            )
        p = probabilities.astype(np.float64)
        negentropy = _p_log_p(p)
        split = np.searchsorted(self._edges, np.arange(start, start + len(p)), side="right") - 1
        if self._sums.size == 0:
            self._sums = np.zeros((self.splits, 2 + p.shape[1]))
        for part in np.unique(split):
            rows = split == part
            self._sums[part] += [rows.sum(), negentropy[rows].sum(), *p[rows].sum(axis=0)]

    def state(self) -> NDArray[np.float64]:
        """The sums as one vector (splits · (2 + classes)), for other processes; empty before the first sample."""
        return self._sums.ravel()

    def add_state(self, state: NDArray[np.float64]) -> None:
        """Add the samples of another process by their `state`; count and splits must be the same."""
        if len(state):
            sums = state.reshape(self.splits, -1)
            self._sums = self._sums + sums if self._sums.size else sums

    def result(self) -> InceptionScore:
        """The score. Raises DataError where samples are missing or were added twice."""
        expected, seen = np.diff(self._edges), self._sums[:, :1].sum(axis=1)
        if not np.array_equal(seen, expected):
            raise DataError(f"{int(seen.sum())} of {expected.sum()} samples were added to the Inception score")
        scores = np.exp(self._sums[:, 1] / expected - _p_log_p(self._sums[:, 2:] / expected[:, None]))
        return InceptionScore(float(scores.mean()), float(scores.std()), self.splits)


def _p_log_p(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ_j p_j log p_j of each row (n,), where 0 log 0 = 0."""
    terms: NDArray[np.float64] = np.where(p > 0.0, p * np.log(np.where(p > 0.0, p, 1.0)), 0.0).sum(axis=1)
    return terms


def gather_score(own: InceptionScoreAccumulator) -> InceptionScoreAccumulator:
    """The accumulators of all ranks merged, on each rank. They must have the same count and splits."""
    if current().size == 1:
        return own
    merged = InceptionScoreAccumulator(own.count, own.splits)
    for state in gather_arrays(own.state()):
        merged.add_state(state)
    return merged
