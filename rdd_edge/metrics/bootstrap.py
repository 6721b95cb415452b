"""Confidence interval of a metric or of its rise, over the random choice of the samples.

To first order the distance of samples x_i to fixed real images is its value plus the mean of influences

    φ_i = 2 (μ - μ_r)·y_i + y_iᵀ (I - T) y_i - tr((I - T) Σ),   y_i = x_i - μ,

T = Σ^-½ (Σ^½ Σ_r Σ^½)^½ Σ^-½ being the optimal map between the two Gaussians, since the gradient of the Fréchet
distance is 2 (μ - μ_r) by the mean and I - T by the covariance. The bootstrap resamples influences, not images: one
pass of N·D² instead of hundreds of covariances, and no bias from repeated images. Two sets of samples from the same
noise are resampled in pairs, so that the variation they share cancels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .frechet import Statistics, span

DRAWS = 2000


def interval(phi: NDArray[np.float64], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric, relative to its measured value.

    phi: influences (N,) of the samples; of a difference of two metrics of samples made from the same noise in the same
    order, the difference of their influences.  Returns (low, high), low <= 0 <= high.
    """
    rng = np.random.default_rng(seed)
    means = [rng.choice(phi, len(phi)).mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return min(float(low), 0.0), max(float(high), 0.0)


def influences(features: NDArray[np.float32], own: Statistics, real: Statistics) -> NDArray[np.float64]:
    """φ (N,), of mean 0, of features (N, D) with statistics `own`, for the distance to `real`."""
    gradient = np.eye(len(own.mean)) - _optimal_map(own, real)  # (D, D)
    delta = own.mean - real.mean
    phi = np.empty(len(features))
    for start in range(0, len(features), 4096):
        y = features[start : start + 4096].astype(np.float64) - own.mean
        phi[start : start + 4096] = 2.0 * (y @ delta) + np.einsum("nd,nd->n", y @ gradient, y)
    result: NDArray[np.float64] = phi - phi.mean()
    return result


def _optimal_map(own: Statistics, real: Statistics) -> NDArray[np.float64]:
    """T on the space that the samples span: it is not defined along directions without variance."""
    root, basis = span(own.cov)
    inner = root[:, None] * (basis.T @ real.cov @ basis) * root
    m, w = np.linalg.eigh(inner)
    half = (w * np.sqrt(m.clip(min=0.0))) @ w.T
    result: NDArray[np.float64] = basis @ (half / root[:, None] / root) @ basis.T
    return result
