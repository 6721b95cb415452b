"""What an evaluation needs to know of the real images, cached."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..console import reporter
from ..data import ImageSet
from ..data.cache import cache_root
from ..distributed import current, everywhere, gather_arrays, split_evenly
from ..files import write_bytes
from .copying import Spacing
from .extractors import Extractor
from .frechet import Statistics, StatisticsAccumulator, frechet_distance, gather_statistics
from .manifold import RealManifold

FORMAT = 2  # of the cached arrays
MOST = 50_000  # images whose features and distances are kept; of more, a random choice
SPLITS = 20

Arrays = dict[str, NDArray[Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """Real images as an extractor sees them.

    halves: Fréchet distances (SPLITS,) between random halves of the `manifold`'s images.
    """

    statistics: Statistics
    manifold: RealManifold
    halves: NDArray[np.float64]

    def floor(self, samples: int) -> tuple[float, float]:
        """Mean and standard deviation of the distance that so many other real images would have.

        Between M and N images of one distribution the Fréchet distance is, to leading order, a quadratic form of
        differences of their moments, whose covariances are proportional to 1/M + 1/N. So the distances between halves
        are scaled by that factor; no data set holds two disjoint sets of the sizes that are compared.
        """
        count = len(self.manifold.features)
        first = count // 2
        scale = (1 / samples + 1 / self.statistics.count) / (1 / first + 1 / (count - first))
        return float(scale * self.halves.mean()), float(scale * self.halves.std(ddof=1))


def image_statistics(images: NDArray[np.uint8], extractor: Extractor) -> Statistics:
    """Statistics of the features of images (N, H, W, C), in memory independent of N."""
    return StatisticsAccumulator().add_all(extractor.batches(images)).result()


def real_reference(data: ImageSet, extractor: Extractor) -> Reference:
    """The reference of a data set, cached under the hashes of the data and of the extractor's weights and its device.

    A broken entry is replaced. Under torchrun the ranks divide the work; each returns the whole result, and rank 0
    caches it. Raises DataError for too few images.
    """
    names = ("mean", "cov", "count", "halves", "features", "precision_radii", "coverage_radii", "within")
    arrays = _cached(
        "statistics", (data.sha256, extractor.sha256, extractor.device), names, lambda: _measure(data, extractor)
    )
    return Reference(
        Statistics(arrays["mean"], arrays["cov"], int(arrays["count"])),
        RealManifold(arrays["features"], arrays["precision_radii"], arrays["coverage_radii"], float(arrays["within"])),
        arrays["halves"],
    )


def real_spacing(data: ImageSet) -> Spacing | None:
    """The distances among the images of a data set, cached; None for more than MOST images."""
    if len(data.images) > MOST:
        return None

    def measure() -> Arrays:
        reporter().begin("distances between the real images")
        found = Spacing.of(data.images)
        reporter().end()
        return {"nearest": found.nearest, "ratios": found.ratios}

    return Spacing(**_cached("spacing", (data.sha256,), ("nearest", "ratios"), measure))


def _measure(data: ImageSet, extractor: Extractor) -> Arrays:
    whole, kept = StatisticsAccumulator(), np.zeros(len(data.images), dtype=bool)
    kept[np.random.default_rng(0).permutation(len(kept))[:MOST]] = True
    rows = current().blocks(len(kept))
    parts, done = [], rows.start
    reporter().begin("features of the real images", len(rows), unit="images")
    for batch in extractor.batches(data.images[rows.start : rows.stop]):
        whole.add(batch)
        parts.append(batch[kept[done : done + len(batch)]])
        done += len(batch)
        reporter().advance(done - rows.start)
    reporter().end()
    total = gather_statistics(whole).result()
    own = np.concatenate(parts) if parts else np.zeros((0, len(total.mean)), np.float32)
    manifold = RealManifold.of(np.concatenate(gather_arrays(own)))
    return {
        "mean": total.mean,
        "cov": total.cov,
        "count": np.array(total.count),
        "halves": _halves(manifold.features),
        "features": manifold.features,
        "precision_radii": manifold.precision_radii,
        "coverage_radii": manifold.coverage_radii,
        "within": np.array(manifold.within),
    }


def _halves(features: NDArray[np.float32]) -> NDArray[np.float64]:
    found = []
    for split in split_evenly(SPLITS, current().rank, current().size):
        order = np.random.default_rng(split).permutation(len(features))
        halves = np.array_split(features[order], 2)
        found.append(frechet_distance(*map(Statistics.of, halves)))
    return np.concatenate(gather_arrays(np.array(found)))


def _cached(kind: str, key: tuple[object, ...], names: tuple[str, ...], measure: Callable[[], Arrays]) -> Arrays:
    path = cache_root() / kind / f"{hashlib.sha256(repr((FORMAT, *key)).encode()).hexdigest()}.npz"
    found = _read(path, names)
    if everywhere(found is not None):
        assert found is not None
        return found
    arrays = measure()
    if current().is_main:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
        write_bytes(path, buffer.getvalue())
    return arrays


def _read(path: Path, names: tuple[str, ...]) -> Arrays | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception:  # NumPy and zipfile raise many types for a broken file
        log.warning("the cached statistics %s are broken; computing them again", path)
        return None
