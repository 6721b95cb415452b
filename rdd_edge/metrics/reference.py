"""Statistics of images' features, and those of real data kept between runs."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import ImageSet
from ..data.cache import cache_root
from ..data.images import shuffled
from ..errors import UsageError
from ..files import write_bytes
from .extractors import Extractor
from .frechet import Statistics, StatisticsAccumulator

__all__ = ["image_statistics", "reference_statistics"]

log = logging.getLogger(__name__)


def image_statistics(images: NDArray[np.uint8], extractor: Extractor) -> Statistics:
    """Statistics of the features of images (N, H, W, C), in memory that does not grow with N."""
    return StatisticsAccumulator().add_all(extractor.batches(images)).result()


def reference_statistics(data: ImageSet, extractor: Extractor, count: int | None = None) -> Statistics:
    """Statistics of a data set, or of `count` images drawn from it, always the same ones.

    Kept in the cache by the hash of pixels, of the extractor's weights and of the count; a broken entry is made again.
    """
    total = len(data.images)
    size = total if count is None else count
    if not 2 <= size <= total:
        raise UsageError(f"{data.name} has {total} images: reference statistics of {size} cannot be made")
    key = hashlib.sha256(repr((data.sha256, extractor.sha256, size)).encode()).hexdigest()
    path = cache_root() / "statistics" / f"{key}.npz"
    found = _read(path)
    if found is None:
        images = data.images if size == total else data.images[np.sort(shuffled(total, 0)[:size])]
        found = image_statistics(images, extractor)
        _write(path, found)
    return found


def _read(path: Path) -> Statistics | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, cov, count = file["mean"], file["cov"], int(file["count"])
        if cov.shape == (len(mean), len(mean)) and count >= 2:
            return Statistics(mean, cov, count)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    log.warning("the cached statistics %s are broken and are made again", path)
    return None


def _write(path: Path, statistics: Statistics) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, mean=statistics.mean, cov=statistics.cov, count=statistics.count)
    write_bytes(path, buffer.getvalue())
