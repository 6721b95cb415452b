"""How sure a difference of two Fréchet distances is: a bootstrap over images, of the distance's linear part.

A distance to fixed real statistics is a smooth function of mean and covariance. With δ = μ - μ_r, Σ_r = R Rᵀ and
T = R (Rᵀ Σ R)^-½ Rᵀ, one image with centred feature c moves it by its influence

    ψ(c) = 2 δ·c + cᵀ (I - T) c - tr((I - T) Σ),

so a resample moves it by the mean of ψ over the images drawn. That costs one pass for all resamples; to resample the
distance itself would cost N D² each, and every resample would be biased by the images it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from .frechet import Features, Statistics, root

__all__ = ["Interval", "bootstrap_difference"]

ROWS = 4096


@dataclass(frozen=True)
class Interval:
    """A difference of two distances, and between which bounds it lies at this level."""

    difference: float
    low: float
    high: float
    level: float


def bootstrap_difference(
    a: Features, b: Features, reference: Statistics, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """fd(a) - fd(b) against the same real statistics, whose own uncertainty is left out: they are common to both.

    a, b: (N, D) features of images from the same noise, row by row; rows are resampled together, so what they share
    cancels.  Raises UsageError where they do not pair, DataError for fewer samples than the covariance needs.
    """
    if a.shape != b.shape or a.shape[1:] != reference.mean.shape:
        raise UsageError(f"features {a.shape} and {b.shape} do not pair: give both the same noise and extractor")
    if len(a) <= a.shape[1]:
        raise DataError(f"{len(a)} samples are too few for an interval with {a.shape[1]} features: give more than that")
    r = root(reference.cov)
    fd_a, influence_a = _influence(a, reference, r)
    fd_b, influence_b = _influence(b, reference, r)
    paired = influence_a - influence_b  # (N,)
    draws = np.random.default_rng(seed)
    moves = [paired[draws.integers(len(paired), size=len(paired))].mean() for _ in range(resamples)]
    low, high = np.quantile(moves, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    difference = fd_a - fd_b
    return Interval(difference, float(difference + low), float(difference + high), level)


def _influence(features: Features, reference: Statistics, r: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The distance, and each image's influence on it, (N,) with mean 0."""
    own = Statistics.of(features)
    values, vectors = np.linalg.eigh(r.T @ own.cov @ r)
    keep = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    whiten = (r @ vectors[:, keep]) * values[keep] ** -0.25  # (D, k): T = whiten whitenᵀ
    delta = own.mean - reference.mean
    distance = delta @ delta + np.trace(own.cov) + np.trace(reference.cov) - 2.0 * np.sqrt(values.clip(0.0)).sum()
    parts = []
    for start in range(0, len(features), ROWS):
        c = features[start : start + ROWS].astype(np.float64) - own.mean
        parts.append(2.0 * (c @ delta) + np.square(c).sum(axis=1) - np.square(c @ whiten).sum(axis=1))
    influence = np.concatenate(parts)
    return max(float(distance), 0.0), influence - influence.mean()
