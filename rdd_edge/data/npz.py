"""Downsampled ImageNet as its authors distribute it (Chrabaszcz et al. 2017): train_data_batch_1.npz … 10.npz.

`data` is (n, 3·s·s) uint8, each row a 3 × s × s image, and `labels` counts the classes from 1. A batch of ImageNet64
is 1.6 GB: it is read from the archive in blocks of rows, never as a whole.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from math import isqrt
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import corrupt_errors
from .decode import Batch, Source, fit_array

ROWS = 2048


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
    with corrupt_errors(f"{path} is not a readable npz file"), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if "data.npy" not in members:
            raise DataError(f"{path} is not a batch of downsampled ImageNet: it has no array named data")
        if "labels.npy" not in members:
            raise DataError(f"{path} has no labels: take the original file of downsampled ImageNet")
        labels = _labels(archive, path)
        with archive.open("data.npy") as file:
            count, width = _shape(file, path)
            side = isqrt(width // 3)
            if 3 * side * side != width or count != len(labels):
                raise DataError(f"{path} has {len(labels)} labels and {count} rows of {width} bytes, not square images")
            for start in range(0, count, ROWS):
                rows = min(ROWS, count - start)
                content = file.read(rows * width)
                if len(content) != rows * width:
                    raise EOFError("it is truncated")
                images = np.frombuffer(content, np.uint8).reshape(rows, 3, side, side).transpose(0, 2, 3, 1)
                fitted = fit_array(np.ascontiguousarray(images), image_size)
                yield Batch(f"{path}, image {start}", fitted, labels[start : start + rows])


def _labels(archive: zipfile.ZipFile, path: Path) -> NDArray[np.int64]:
    with archive.open("labels.npy") as file:
        labels: NDArray[np.int64] = np.lib.format.read_array(file, allow_pickle=False)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 1):
        raise DataError(f"{path}: its labels are not integers from 1 on")
    return labels.astype(np.int64) - 1


def _shape(file: IO[bytes], path: Path) -> tuple[int, int]:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if fortran or dtype != np.uint8 or len(shape) != 2:
        raise DataError(f"{path}: its data is not a matrix of bytes")
    return shape[0], shape[1]
