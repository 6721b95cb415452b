"""Decoded data sets as memory-mapped files, written once.

$RDD_EDGE_CACHE (by default the platform's cache folder, e.g. ~/.cache/rdd-edge)
    images/<key>/   images.u8 (N, H, W, C), labels.i64 and meta.json; the key is a hash of the source files' content
    index/*.json    the content hash of a path, valid while the times and sizes of its files are the same
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from ..errors import CorruptError, DataError, MissingError, StorageError
from ..files import new_folder, sha256_of, storage_errors, write_model
from ..reading.documents import read_model
from ..schema import Count, Frozen, Sha256, Side
from .decode import MOST_CLASSES, Batch, Source, same_shape
from .images import ImageSet, content_sha256

log = logging.getLogger(__name__)

FORMAT = 2  # of an entry: raised with every change of decoding, of resizing and of its files
MOST_NAME = 255  # characters of a class
IMAGES, LABELS, META = "images.u8", "labels.i64", "meta.json"


class Index(Frozen):
    """The content hash of a source whose files have these names, sizes and times."""

    stat_sha256: Sha256
    content_sha256: Sha256


class Meta(Frozen):
    """meta.json of an entry."""

    schema_version: Literal[1] = 1
    shape: tuple[Count, Side, Side, Side]
    labelled: bool
    classes: tuple[str, ...] | None
    sha256: Sha256  # that of the ImageSet


def cache_root() -> Path:
    """$RDD_EDGE_CACHE, or the folder of this platform for a user's caches, such as ~/.cache/rdd-edge."""
    return Path(os.environ.get("RDD_EDGE_CACHE") or platformdirs.user_cache_path("rdd-edge", appauthor=False))


def cached(source: Source, image_size: int | None) -> ImageSet:
    """The decoded source from the cache, decoded into it first where it is absent or broken.

    Raises DataError or CorruptError where the source cannot be read, StorageError where the cache cannot be written.
    """
    root = cache_root()
    _check_names(source)
    try:
        key = _key(root / "index", source, image_size)
        folder = root / "images" / key
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            locked = FileLock(folder.parent / f".{key}.lock").acquire()
        with locked:  # of several processes that start together, one decodes and the others wait for it
            found = _read(folder, source.name)
            if found is None:
                with new_folder(folder) as beside:
                    _decode_into(beside, source, image_size)
                found = _read(folder, source.name)
    except StorageError as error:
        raise StorageError(f"{error} (the cache of decoded images: RDD_EDGE_CACHE names another folder)") from None
    if found is None:
        raise StorageError(f"{folder} changed while it was written: set RDD_EDGE_CACHE to another folder")
    return found


def _key(index: Path, source: Source, image_size: int | None) -> str:
    """Hash of the source's files and their names below its root, of the image size, and of FORMAT."""
    digest = hashlib.sha256()
    for file in source.files:
        try:
            stat = file.stat()
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}") from None
        digest.update(repr((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)).encode())
    stat_sha256 = digest.hexdigest()
    entry = index / f"{hashlib.sha256(str(source.root.resolve()).encode()).hexdigest()}.json"
    try:
        known = read_model(entry, Index)
    except (MissingError, CorruptError):
        known = None
    if known is None or known.stat_sha256 != stat_sha256:
        try:
            known = Index(stat_sha256=stat_sha256, content_sha256=_content_sha256(source))
        except MissingError as error:
            raise DataError(str(error)) from None
        write_model(entry, known)
    return hashlib.sha256(repr((FORMAT, known.content_sha256, image_size)).encode()).hexdigest()


def _content_sha256(source: Source) -> str:
    digest = hashlib.sha256(repr(source.classes).encode())
    for file in source.files:
        relative = file.relative_to(source.root).as_posix() if file != source.root else ""
        digest.update(repr((relative, sha256_of(file))).encode())
    return digest.hexdigest()


def _read(folder: Path, name: str) -> ImageSet | None:
    """The entry, or None where it is absent or broken. Its hash is verified: a disk can change what it holds."""
    if not folder.exists():
        return None
    try:
        meta = read_model(folder / META, Meta)
        images = _mapped(folder / IMAGES, meta.shape)
        labels = np.array(_mapped(folder / LABELS, meta.shape[:1], "<i8"), np.int64) if meta.labelled else None
        if content_sha256(images, labels, meta.classes) == meta.sha256:
            return ImageSet(name, images, labels, meta.classes, meta.sha256)
    except (MissingError, CorruptError, OSError, ValueError):
        pass
    log.warning("the cached images in %s are broken; decoding them again", folder)
    return None


def _mapped(path: Path, shape: tuple[int, ...], dtype: str = "u1") -> NDArray[Any]:
    """A copy-on-write memory map. Raises ValueError or OSError where the file has a different size."""
    if path.stat().st_size != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError("the file has a different size")
    return np.memmap(path, dtype, "c", shape=shape)


def _decode_into(folder: Path, source: Source, image_size: int | None) -> None:
    """Write the source's batches to disk. A full disk is then an error; in a memory map it would be a signal."""
    first: tuple[str, tuple[int, ...]] | None = None
    labels: list[NDArray[np.int64]] = []
    count = 0
    with (folder / IMAGES).open("wb") as file:
        for batch in source.batches(image_size):
            first = first or (batch.where, batch.images.shape[1:])
            same_shape(first, (batch.where, batch.images.shape[1:]))
            file.write(np.ascontiguousarray(batch.images).data)
            labels += [] if batch.labels is None else [_checked(batch, source.classes)]
            count += len(batch.images)
        file.flush()
        os.fsync(file.fileno())
    if first is None or count == 0:
        raise DataError(f"{source.root} holds no images")
    joined = np.concatenate(labels) if labels else None
    classes = source.classes
    if classes is None and joined is not None:
        classes = tuple(str(label) for label in range(int(joined.max()) + 1))
    height, width, channels = first[1]
    shape = count, height, width, channels
    if joined is not None:
        joined.astype("<i8").tofile(folder / LABELS)
    sha256 = content_sha256(_mapped(folder / IMAGES, shape), joined, classes)
    meta = Meta(shape=shape, labelled=joined is not None, classes=classes, sha256=sha256)
    write_model(folder / META, meta)


def _checked(batch: Batch, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
    """The labels of a batch, each an index into `classes`, or below MOST_CLASSES where the classes have no names."""
    assert batch.labels is not None
    most = MOST_CLASSES if classes is None else len(classes)
    wrong = batch.labels[(batch.labels < 0) | (batch.labels >= most)]
    if len(wrong):
        raise DataError(f"{batch.where} or an image after it has the label {wrong[0]}, outside 0 … {most - 1}")
    return batch.labels


def _check_names(source: Source) -> None:
    """Raise DataError for names of classes that no document can hold, such as a folder's that is not UTF-8."""
    names = source.classes or ()
    wrong = next((name for name in names if not name.isprintable() or len(name) > MOST_NAME), None)
    if wrong is not None or len(names) > MOST_CLASSES:
        what = f"{len(names)} classes" if wrong is None else f"the class {ascii(wrong)[:80]}"
        raise DataError(f"{source.root} has {what}: use at most {MOST_CLASSES} names of printable characters")
