"""CIFAR-10 as its authors distribute it: five pickled training batches, in a folder or in the tar.gz."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import CorruptError, DataError
from ..files import corrupt_errors
from .decode import Batch, Source, fit_array
from .pickles import integers, read_plain_pickle, text

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
            yield _batch(file.read_bytes(), str(file), image_size)

    classes = _classes(meta.read_bytes(), str(meta)) if meta.is_file() else None
    return Source("cifar10", folder, (*files, meta) if meta.is_file() else files, batches, classes)


def cifar_archive(path: Path) -> Source:
    """The training batches in cifar-10-python.tar.gz, read without unpacking it."""
    with corrupt_errors(f"{path} is a broken archive"), tarfile.open(path, "r:*") as archive:
        members = sorted((member for member in archive if member.isfile()), key=lambda member: member.name)
        files = [member for member in members if Path(member.name).name.startswith("data_batch_")]
        metas = [member for member in members if Path(member.name).name == META]
        classes = _classes(_content(archive, metas[0]), f"{path}/{metas[0].name}") if metas else None
    if not files:
        raise DataError(f"{path} has no data_batch_1 …: it is not CIFAR-10's Python version")

    def batches(image_size: int | None) -> Iterator[Batch]:
        with corrupt_errors(f"{path} is a broken archive"), tarfile.open(path, "r:*") as archive:
            for file in files:
                yield _batch(_content(archive, file), f"{path}/{file.name}", image_size)

    return Source("cifar10", path, (path,), batches, classes)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # None is for what is not a regular file
    return file.read()


def _batch(content: bytes, where: str, image_size: int | None) -> Batch:
    """One pickled batch: `data` (n, 3072), each row a 3 × 32 × 32 image, and `labels`."""
    with corrupt_errors(f"{where} is not a batch of CIFAR-10"):
        batch = read_plain_pickle(content)
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


def _classes(content: bytes, where: str) -> tuple[str, ...]:
    try:
        names = read_plain_pickle(content)["label_names"]
        return tuple(map(text, names))
    except (ValueError, KeyError, TypeError):
        raise CorruptError(f"{where} does not name the classes of CIFAR-10") from None
