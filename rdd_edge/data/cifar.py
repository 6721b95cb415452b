"""CIFAR-10 as its authors distribute it: five pickled training batches, in a folder or in the tar.gz."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from ..errors import CorruptError, DataError, RddEdgeError, first_line
from .decode import Batch, Source, fit_array
from .pickles import integers, read_plain_pickle

__all__ = ["cifar_archive", "cifar_folder"]

FOLDER = "cifar-10-batches-py"
META = "batches.meta"
Reader = Callable[[str], bytes]  # name of a batch → its bytes


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
    with _opened(path) as read:
        names = tuple(name for name in _members(path) if Path(name).name.startswith("data_batch_"))
        metas = [name for name in _members(path) if Path(name).name == META]
        classes = _classes(read(metas[0]), f"{path}/{metas[0]}") if metas else None
    if not names:
        raise DataError(f"{path} has no data_batch_1 …: it is not CIFAR-10's Python version")

    def batches(image_size: int | None) -> Iterator[Batch]:
        with _opened(path) as read:
            for name in names:
                yield _batch(read(name), f"{path}/{name}", image_size)

    return Source("cifar10", path, (path,), batches, classes)


def _opened(path: Path) -> AbstractContextManager[Reader]:
    @contextmanager
    def opened() -> Iterator[Reader]:
        with _broken_archive(path), tarfile.open(path, "r:*") as archive:

            def read(name: str) -> bytes:
                with _broken_archive(path):
                    file = archive.extractfile(name)
                    if file is None:
                        raise CorruptError(f"{path} has {name}, but not as a file")
                    return file.read()

            yield read

    return opened()


def _members(path: Path) -> list[str]:
    with _broken_archive(path), tarfile.open(path, "r:*") as archive:
        return sorted(member.name for member in archive if member.isfile())


@contextmanager
def _broken_archive(path: Path) -> Iterator[None]:
    try:
        yield
    except RddEdgeError:
        raise
    except Exception as error:  # tarfile and its decompressors raise many types for a broken archive
        raise CorruptError(f"{path} is a broken archive: {first_line(error)}") from None


def _batch(content: bytes, where: str, image_size: int | None) -> Batch:
    """One pickled batch: `data` (n, 3072), each row a 3 × 32 × 32 image, and `labels`."""
    try:
        batch = read_plain_pickle(content)
    except ValueError as error:
        raise CorruptError(f"{where} is not a batch of CIFAR-10: {error}") from None
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
        return tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)
    except (ValueError, KeyError, TypeError):
        raise CorruptError(f"{where} does not name the classes of CIFAR-10") from None
