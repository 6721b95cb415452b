"""Image sources as one uint8 array: scikit-learn's digits, CIFAR-10, parquet, ImageNet64, folders of images.

digits ───────────────────────────────────────┐
cifar  parquet  npz  folder ─ Source ─ cache ─┴▶ ImageSet
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError, MissingError, UsageError
from .cache import cached
from .cifar import cifar_archive, cifar_folder
from .decode import Source, fit_array
from .folder import folder_source
from .images import ImageSet, content_sha256, load_digits
from .npz import npz_source
from .parquet import parquet_source

__all__ = ["ImageSet", "load_images"]


def load_images(spec: str, image_size: int | None = None) -> ImageSet:
    """The data set that `--data` names: "digits", or a path to one of

    - a folder with CIFAR-10's data_batch_1 … 5, or cifar-10-python.tar.gz;
    - a parquet file or a folder with some (columns img or image, and label);
    - a folder of train_data_batch_*.npz of downsampled ImageNet, or one of them;
    - a folder with one folder of images per class, or a folder of images.

    Only training splits are read where file names tell them from test splits. image_size: side of the centred square
    that each image is cropped and resized to; None leaves the images unchanged, and they must then have one size.
    Everything but the digits is decoded once into a cache and returned as a memory map.

    Raises UsageError, MissingError, DataError, CorruptError, StorageError, DependencyError.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"--image-size {image_size} is not valid: give at least 1")
    if spec == "digits":
        return _resized(load_digits(), image_size)
    path = Path(os.path.expanduser(spec))  # unlike Path.expanduser, it leaves the home of an unknown user as it is
    if not os.path.exists(path):  # unlike Path.exists, it raises nothing for a path that cannot exist
        raise MissingError(f"there is no data set {spec}: give digits, or a file or folder that exists")
    try:
        source = _find(path)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror}") from None
    return cached(source, image_size)


def _find(path: Path) -> Source:
    """The data set at `path`, by the reader that recognises it."""
    if path.is_dir():
        return cifar_folder(path) or parquet_source(path) or npz_source(path) or folder_source(path)
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return cifar_archive(path)
    source = {".parquet": parquet_source, ".npz": npz_source}.get(path.suffix, lambda _: None)(path)
    if source is None:
        raise DataError(f"{path} is not a data set: give a folder, or a file .tar.gz of CIFAR-10, .parquet or .npz")
    return source


def _resized(data: ImageSet, image_size: int | None) -> ImageSet:
    images = fit_array(data.images, image_size)
    if images is data.images:
        return data
    return ImageSet(data.name, images, data.labels, data.classes, content_sha256(images, data.labels, data.classes))
