"""Statistics of the features of images, cached for real data."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..console import reporter
from ..data import ImageSet
from ..data.cache import cache_root
from ..distributed import current, everywhere
from ..files import write_bytes
from .extractors import Extractor
from .frechet import Statistics, StatisticsAccumulator, frechet_distance, gather_statistics

FLOOR_SEED = 0

log = logging.getLogger(__name__)


def image_statistics(images: NDArray[np.uint8], extractor: Extractor) -> Statistics:
    """Statistics of the features of images (N, H, W, C), in memory independent of N."""
    return StatisticsAccumulator().add_all(extractor.batches(images)).result()


def reference_statistics(data: ImageSet, extractor: Extractor) -> tuple[Statistics, float]:
    """Statistics of a data set, and the Fréchet distance of a random half of it to the other half.

    In memory independent of the data's size, and cached under the hashes of the data and of the extractor's weights; a
    broken entry is replaced. Under torchrun the ranks divide the work; each returns the whole result, and rank 0 caches
    it. Raises DataError for fewer than four images.
    """
    key = hashlib.sha256(repr((data.sha256, extractor.sha256, "halves", FLOOR_SEED)).encode()).hexdigest()
    paths = [cache_root() / "statistics" / f"{key}-{half}.npz" for half in (0, 1)]
    halves = [found for path in paths if (found := _read(path)) is not None]
    if not everywhere(len(halves) == 2):
        halves = _halves(data, extractor)
        for path, half in zip(paths, halves, strict=True):
            if current().is_main:
                _write(path, half)
    whole = StatisticsAccumulator()
    for half in halves:
        whole.add_moments(half.count, half.mean, (half.count - 1) * half.cov)
    return whole.result(), frechet_distance(*halves)


def _halves(data: ImageSet, extractor: Extractor) -> list[Statistics]:
    first = np.zeros(len(data.images), dtype=bool)
    first[np.random.default_rng(FLOOR_SEED).permutation(len(first))[: len(first) // 2]] = True
    parts = [StatisticsAccumulator(), StatisticsAccumulator()]
    rows = current().blocks(len(first))
    done = rows.start
    reporter().begin("features of the real images", len(rows), unit="images")
    for batch in extractor.batches(data.images[rows.start : rows.stop]):
        mine = first[done : done + len(batch)]
        parts[0].add(batch[mine])
        parts[1].add(batch[~mine])
        done += len(batch)
        reporter().advance(done - rows.start)
    reporter().end()
    return [gather_statistics(part).result() for part in parts]


def _read(path: Path) -> Statistics | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, cov, count = file["mean"], file["cov"], int(file["count"])
        if cov.shape == (len(mean), len(mean)) and count >= 2:
            return Statistics(mean, cov, count)
    except Exception:  # NumPy and zipfile raise many types for a broken file
        pass
    log.warning("the cached statistics %s are broken; computing them again", path)
    return None


def _write(path: Path, statistics: Statistics) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, mean=statistics.mean, cov=statistics.cov, count=statistics.count)
    write_bytes(path, buffer.getvalue())
