"""Near copies: samples that are closer to a training image than real images are to one another.

The ratio of an image y is |y - x| / |x - x'|, where x is the training image nearest to y, and x' the training image
nearest to x, other than y. Such relative distances, as in Carlini et al. 2023 (Extracting Training Data from Diffusion
Models), do not take a dense region of the data, such as the digit 1, for copies. A sample is a near copy if its ratio
is at most the 5th percentile of the ratios of the training images themselves, each left out in turn. So 5 % of other
real images are near copies: an interval that lies above 5 % shows copying.

The share in a tail sees a few copies among many bad images, where a mean rank (Meehan et al. 2020) or a share of ratios
below 1 (authenticity, Alaa et al. 2022) stays below that of real images. Distances are between pixels: they need no
network, and copies with added noise stay closer than they do in features. Copies that are shifted or mirrored are not
recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bootstrap import DRAWS
from .neighbors import by_row, nearest_others

LEVEL = 0.05


@dataclass(frozen=True)
class Spacing:
    """Of the training images (N,): distance to the nearest other one, and the ratio of each when it is left out."""

    nearest: NDArray[np.float64]
    ratios: NDArray[np.float64]

    @staticmethod
    def of(images: NDArray[np.uint8]) -> Spacing:
        """Of images (N, H, W, C). Raises DataError for fewer than three."""
        squared, index = nearest_others(_flat(images), 2)
        distances, nearest = np.sqrt(squared), index[:, 0]
        mutual = index[nearest, 0] == np.arange(len(images))  # the nearest one's nearest is the image itself
        own = np.where(mutual, distances[nearest, 1], distances[nearest, 0])
        return Spacing(distances[:, 0], _ratio(distances[:, 0], own))

    @property
    def real_share(self) -> float:
        """The share of near copies among real images: LEVEL, or more where many images of the data are equal."""
        return _share(self.ratios, self.ratios)


def sample_ratios(samples: NDArray[np.uint8], images: NDArray[np.uint8], spacing: Spacing) -> NDArray[np.float64]:
    """The ratio (M,) of each sample (M, H, W, C) among training images (N, H, W, C)."""

    def nearest(_: NDArray[np.int64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([d.min(axis=1), d.argmin(axis=1)], axis=1)

    squared, index = by_row(_flat(samples), _flat(images), 2, nearest).T
    return _ratio(np.sqrt(squared), spacing.nearest[index.astype(np.int64)])


def near_copies(
    ratios: NDArray[np.float64], spacing: Spacing, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """(share of near copies, ends of its percentile bootstrap interval) of samples with these ratios (M,).

    Samples and training images are resampled, so that an interval above 5 % is none by chance in either.
    """
    rng = np.random.default_rng(seed)
    shares = [
        _share(rng.choice(ratios, len(ratios)), rng.choice(spacing.ratios, len(spacing.ratios))) for _ in range(DRAWS)
    ]
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return _share(ratios, spacing.ratios), float(low), float(high)


def _share(ratios: NDArray[np.float64], real: NDArray[np.float64]) -> float:
    rank = int(np.ceil(LEVEL * len(real))) - 1
    return float(np.mean(ratios <= np.partition(real, rank)[rank]))


def _ratio(distance: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    """distance / own; 0 for an equal image, even where the data hold that image twice."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0.0, 0.0, distance / own)


def _flat(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.reshape(len(images), -1)
