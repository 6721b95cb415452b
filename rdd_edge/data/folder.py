"""A folder of images, or of one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .decode import Batch, Encoded, Source, decode_all

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def folder_source(path: Path) -> Source:
    """Unlabelled images directly in `path`, or those below its folders, each of which is a class, sorted by name.

    Other files and hidden ones are ignored. Raises DataError where there are no images, where a class has none, or
    where some images are in classes and others beside them.
    """
    loose = _images(path)
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    by_class = {folder.name: _images_below(folder) for folder in folders}
    if loose and any(by_class.values()):
        raise DataError(f"{loose[0]} has no label, while other images of {path} are in one folder per class: move it")
    if not loose and not any(by_class.values()):
        raise DataError(f"{path} has no images: neither PNG, JPEG or the like, nor CIFAR-10, parquet or npz files")
    empty = [name for name, files in by_class.items() if not files]
    if empty and not loose:
        raise DataError(f"{path / empty[0]} has no images: remove the folder, or add images of the class")
    items: list[tuple[Path, int | None]] = [(file, None) for file in loose]
    items += [(file, label) for label, files in enumerate(by_class.values()) for file in files]
    classes = None if loose else tuple(by_class)

    def batches(image_size: int | None) -> Iterator[Batch]:
        return decode_all((Encoded(str(file), file, label) for file, label in items), image_size)

    return Source(path.resolve().name, path, tuple(file for file, _ in items), batches, classes)


def _images(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _is_image(entry.name) and entry.is_file())
    return [folder / name for name in names]


def _images_below(folder: Path) -> list[Path]:
    below = sorted(path for path, _, _ in os.walk(folder))
    return [file for path in below for file in _images(Path(path))]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
