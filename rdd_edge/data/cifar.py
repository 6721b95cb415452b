"""CIFAR-10 as its authors distribute it: five pickled training batches, in a folder or in the tar.gz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptError, DataError
from ..reading.archives import tar_files
from ..reading.pickles import integers, parse_pickle, read_pickle, text
from .decode import Batch, Source, fit_array

FOLDER = "cifar-10-batches-py"
META = "batches.meta"


def cifar_folder(path: Path) -> Source | None:
    """The training batches in `path` or in its cifar-10-batches-py; None where it has none."""
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    files = tuple(sorted(folder.glob("data_batch_[0-9]")))
    if not files:
        return None
    meta = folder / META

    def batches(image_size: int | None) -> Iterator[Batch]:
        for file in files:
            yield _batch(read_pickle(file), str(file), image_size)

    classes = _classes(read_pickle(meta), str(meta)) if meta.is_file() else None
    return Source("cifar10", folder, (*files, meta) if meta.is_file() else files, batches, classes)


def cifar_archive(path: Path) -> Source:
    """The training batches in cifar-10-python.tar.gz, read without unpacking it."""
    classes = next((_classes(*_pickle(path, meta)) for meta in tar_files(path, lambda name: _is(name, META))), None)

    def batches(image_size: int | None) -> Iterator[Batch]:
        files = sorted(tar_files(path, lambda name: _is(name, "data_batch_")))
        if not files:
            raise DataError(f"{path} has no data_batch_1 …: it is not CIFAR-10's Python version")
        for file in files:
            yield _batch(*_pickle(path, file), image_size)

    return Source("cifar10", path, (path,), batches, classes)


def _is(name: str, start: str) -> bool:
    return Path(name).name.startswith(start)


def _pickle(path: Path, file: tuple[str, bytes]) -> tuple[dict[str, Any], str]:
    where = f"{path}/{file[0]}"
    return parse_pickle(file[1], where), where


def _batch(batch: dict[str, Any], where: str, image_size: int | None) -> Batch:
    """One pickled batch: `data` (n, 3072), each row a 3 × 32 × 32 image, and `labels`."""
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise CorruptError(f"{where} is not a batch of CIFAR-10: it has no images of 3 × 32 × 32 bytes")
    if "labels" not in batch:
        raise DataError(f"{where} has no labels: take the original file of CIFAR-10")
    try:
        labels = integers(batch["labels"])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    if len(labels) != len(data):
        raise DataError(f"{where} has {len(data)} images and {len(labels)} labels")
    images = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Batch(where, fit_array(images, image_size), labels)


def _classes(meta: dict[str, Any], where: str) -> tuple[str, ...]:
    names = meta.get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise CorruptError(f"{where} does not name the classes of CIFAR-10")
    return tuple(map(text, names))
