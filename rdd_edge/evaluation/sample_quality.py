"""Quality of images against real ones, each figure with its 95 % interval over the choice of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..data import ImageSet
from ..metrics.bootstrap import influences, interval
from ..metrics.copying import Spacing, near_copies, sample_ratios
from ..metrics.frechet import Statistics, frechet_distance
from ..metrics.manifold import PRECISION_K, Sampled, manifold_metrics
from ..metrics.reference import MOST, Reference
from ..schema import Frozen

LEAST = PRECISION_K + 1  # samples
DASH = "–"

Measure = Annotated[float, Field(ge=0, le=1e12)]


class Estimate(Frozen):
    """A figure and the ends of its 95 % interval over the choice of the samples, where it has one."""

    value: Measure
    low: Measure | None
    high: Measure | None

    @property
    def text(self) -> str:
        """The value ± half of the interval."""
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ± {(self.high - self.low) / 2:.3f}"


class Neighbors(Frozen):
    """Fidelity, diversity and copying by nearest neighbors."""

    precision: Estimate  # share of samples near real images
    recall: Estimate  # share of real images near samples
    density: Estimate  # real images near a sample, divided by k; 1 for real images
    coverage: Estimate  # share of real images that have a sample near them
    copies: Estimate | None  # share of samples nearer to a real image than 95 % of real images; None: too many images

    def texts(self) -> list[str]:
        """The figures in the order of TITLES."""
        return [
            one.text if one else DASH for one in (self.precision, self.recall, self.density, self.coverage, self.copies)
        ]


TITLES = ("precision", "recall", "density", "coverage", "near copies")


@dataclass(frozen=True)
class SampleQuality:
    """statistics, influences: of the samples, for differences of distances; None where a distance has no interval."""

    distance: Estimate
    neighbors: Neighbors
    statistics: Statistics
    influences: NDArray[np.float64] | None


def sample_quality(
    images: NDArray[np.uint8], features: NDArray[np.float32], real: ImageSet, reference: Reference,
    spacing: Spacing | None,
) -> SampleQuality:  # fmt: skip
    """Quality of images (M, H, W, C) with these features (M, D). Raises DataError for fewer than LEAST images.

    reference, spacing: of the real images (real_reference, real_spacing), which a caller with several sets reads once.
    """
    own = Statistics.of(features)
    distance = frechet_distance(own, reference.statistics)
    phi = None if own.caution() else influences(features, own, reference.statistics)
    found = manifold_metrics(features[:MOST], reference.manifold)
    copies = None
    if spacing is not None:
        copies = _estimate(*near_copies(sample_ratios(images[:MOST], real.images, spacing), spacing))
    return SampleQuality(
        _estimate(distance) if phi is None else _with_interval(Sampled(distance, phi)),
        Neighbors(
            precision=_with_interval(found.precision),
            recall=_with_interval(found.recall),
            density=_with_interval(found.density),
            coverage=_with_interval(found.coverage),
            copies=copies,
        ),
        own,
        phi,
    )


def real_neighbors(reference: Reference, spacing: Spacing | None, samples: int) -> Neighbors:
    """The figures that so many other real images would have."""
    within = _estimate(reference.manifold.within)
    return Neighbors(
        precision=within,
        recall=within,
        density=_estimate(1.0),
        coverage=_estimate(reference.manifold.expected_coverage(min(samples, MOST))),
        copies=_estimate(spacing.real_share) if spacing else None,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for a terminal, its first column left-aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for first, *others in (head, *rows):
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines


def _with_interval(found: Sampled) -> Estimate:
    low, high = interval(found.influences)
    return _estimate(found.value, max(found.value + low, 0.0), found.value + high)


def _estimate(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)
