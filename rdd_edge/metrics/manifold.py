"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), in features.

A ball around each image reaches to its k-th nearest image of the same set:

    precision  share of samples inside the ball of some real image, k = 3
    recall     share of real images inside the ball of some sample, k = 3
    density    mean number of real images whose ball contains a sample, divided by k, k = 5
    coverage   share of real images whose ball contains some sample, k = 5

A generator that repeats one good image has a precision of 1 and a recall and a coverage of nearly 0. Balls are closed,
as in Kynkäänniemi et al.; the `prdc` package has open ones, which differ only where distances are equal.

A metric comes with the influence of each sample on it: M - 1 times its change when that sample is left out, while the
balls of the others stay. Intervals of these influences are those of the jackknife, which for shares of what is reached
are too wide rather than too narrow (Efron and Stein 1981).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .neighbors import Rows, by_row, nearest_others

PRECISION_K, COVERAGE_K = 3, 5


@dataclass(frozen=True)
class Sampled:
    """A metric of M samples, and the influence (M,) of each of them, of mean 0."""

    value: float
    influences: NDArray[np.float64]


@dataclass(frozen=True)
class RealManifold:
    """The real images' features (N, D), and the squared radii (N,) of their balls for precision and for coverage.

    within: share of these images inside the ball of another one, the precision and the recall of more real images.
    """

    features: NDArray[np.float32]
    precision_radii: NDArray[np.float64]
    coverage_radii: NDArray[np.float64]
    within: float

    @staticmethod
    def of(features: NDArray[np.float32]) -> RealManifold:
        """Raises DataError for fewer than COVERAGE_K + 1 images."""
        squared, index = nearest_others(features, COVERAGE_K)
        # Leaving an image out enlarges the balls of those that have it among their k nearest, so that these contain
        # it, and no others: it is within another's ball if and only if it is among the k nearest of another one.
        within = len(np.unique(index[:, :PRECISION_K])) / len(features)
        return RealManifold(features, squared[:, PRECISION_K - 1], squared[:, COVERAGE_K - 1], within)

    def expected_coverage(self, samples: int) -> float:
        """The mean coverage of so many real images: of N - 1 + M others, one of M is among the k nearest (Lemma 2)."""
        others = len(self.features) - 1 - np.arange(COVERAGE_K)
        return 1.0 - float(np.prod(others / (others + samples)))


@dataclass(frozen=True)
class Manifold:
    precision: Sampled
    recall: Sampled
    density: Sampled
    coverage: Sampled


def manifold_metrics(samples: Rows, real: RealManifold) -> Manifold:
    """The four metrics of samples (M, D). Raises DataError for fewer than PRECISION_K + 1 samples."""
    radii = nearest_others(samples, PRECISION_K)[0][:, -1]  # (M,)

    def of_sample(_: NDArray[np.int64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        inside, close = d <= real.precision_radii, d <= real.coverage_radii
        return np.stack([inside.any(axis=1), close.sum(axis=1) / COVERAGE_K], axis=1)

    def of_real(index: NDArray[np.int64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        inside, close = d <= radii, d <= real.coverage_radii[index, None]
        return np.stack(
            [inside.sum(axis=1), inside.argmax(axis=1), close.sum(axis=1), close.argmax(axis=1)], axis=1
        ).astype(np.float64)

    precise, dense = by_row(samples, real.features, 2, of_sample).T
    recalled, only_ball, covered, only_sample = by_row(real.features, samples, 4, of_real).T
    return Manifold(
        precision=_mean(precise),
        recall=_share(recalled, only_ball, len(samples)),
        density=_mean(dense),
        coverage=_share(covered, only_sample, len(samples)),
    )


def _mean(values: NDArray[np.float64]) -> Sampled:
    return Sampled(float(values.mean()), values - values.mean())


def _share(counts: NDArray[np.float64], first: NDArray[np.float64], samples: int) -> Sampled:
    """The share of real images (N,) that some sample reaches; without the only one that does, an image is lost."""
    lost = np.bincount(first[counts == 1].astype(np.int64), minlength=samples) / len(counts)
    return Sampled(float(np.mean(counts > 0)), (samples - 1) * (lost - lost.mean()))
