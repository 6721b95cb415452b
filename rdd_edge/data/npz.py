"""Downsampled ImageNet as its authors distribute it (Chrabaszcz et al. 2017): train_data_batch_1.npz … 10.npz.

`data` is (n, 3·s·s) uint8, each row a 3 × s × s image, and `labels` counts the classes from 1. A batch of ImageNet64
is 1.6 GB: it is read from the archive in blocks of rows, never as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..reading.archives import array_blocks, array_names, array_shape
from .decode import MOST_CLASSES, Batch, Source, fit_array

MOST_SIDE = 1024
MOST_IMAGES = 10_000_000


def npz_source(path: Path) -> Source | None:
    """The batch at `path`, or the training batches in the folder by their numbers; None where it has none."""
    files = [path] if path.is_file() else [file for file in path.glob("*.npz") if file.name.startswith("train_data")]
    if not files:
        return None
    files.sort(key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)])

    def batches(image_size: int | None) -> Iterator[Batch]:
        for file in files:
            yield from _batches(file, image_size)

    return Source(path.stem if path.is_file() else path.resolve().name, path, tuple(files), batches)


def _batches(path: Path, image_size: int | None) -> Iterator[Batch]:
    names = array_names(path)
    if "data" not in names:
        raise DataError(f"{path} is not a batch of downsampled ImageNet: it has no array named data")
    if "labels" not in names:
        raise DataError(f"{path} has no labels: take the original file of downsampled ImageNet")
    labels = _labels(path)
    shape, dtype = array_shape(path, "data")
    if dtype != np.uint8 or len(shape) != 2:
        raise DataError(f"{path}: its data is not a matrix of bytes")
    count, width = shape
    side = isqrt(width // 3)
    if 3 * side * side != width or not 1 <= side <= MOST_SIDE or count != len(labels):
        raise DataError(f"{path} has {len(labels)} labels and {count} rows of {width} bytes, not square images")
    start = 0
    for rows in array_blocks(path, "data"):
        images = rows.reshape(len(rows), 3, side, side).transpose(0, 2, 3, 1)
        fitted = fit_array(np.ascontiguousarray(images), image_size)
        yield Batch(f"{path}, image {start}", fitted, labels[start : start + len(rows)])
        start += len(rows)


def _labels(path: Path) -> NDArray[np.int64]:
    shape, dtype = array_shape(path, "labels")
    if len(shape) != 1 or dtype.kind not in "iu" or shape[0] > MOST_IMAGES:
        raise DataError(f"{path}: its labels are not integers from 1 on")
    labels = np.concatenate([np.zeros(0, dtype), *array_blocks(path, "labels")])
    if len(labels) and not 1 <= labels.min() <= labels.max() <= MOST_CLASSES:
        raise DataError(f"{path}: its labels are not integers from 1 to {MOST_CLASSES}")
    return labels.astype(np.int64) - 1
