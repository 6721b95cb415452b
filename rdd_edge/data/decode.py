"""The interface of the readers of data sets, and decoding of images to uint8 arrays of one shape.

Images are decoded in chunks on all cores: Pillow releases the interpreter's lock.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..dependencies import import_or_explain
from ..errors import DataError
from ..reading.images import decode_image

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK, CHUNK_BYTES = 128, 1 << 26  # images decoded at a time, and bytes of them
MOST_CLASSES = 65_536  # labels are below


@dataclass(frozen=True)
class Encoded:
    """An image before it is decoded. `where` names it in error messages."""

    where: str
    content: bytes | Path
    label: int | None


@dataclass(frozen=True)
class Batch:
    """Images (n, H, W, C) uint8 with their labels (n,) int64, and the file or entry of the first."""

    where: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class Source:
    """A data set before it is decoded.

    files: all files that the images and labels are read from, in order; they are below `root`, or `root` itself.
    batches: for an image size (None: unchanged), the decoded images in the order of `files`.
    classes: their names by label; None where the source has none: the classes of a labelled set are then numbered.
    """

    name: str
    root: Path
    files: tuple[Path, ...]
    batches: Callable[[int | None], Iterator[Batch]]
    classes: tuple[str, ...] | None = None


def decode_all(items: Iterable[Encoded], image_size: int | None) -> Iterator[Batch]:
    """Batches in the order of `items`, cropped and resized where a size is given, of at most CHUNK_BYTES.

    Raises DataError for the first image that is unreadable or has another shape than the first of all.
    """
    import_or_explain("PIL.Image", "reading images", "distill")
    remaining, first, size = iter(items), None, 1  # the first image alone says how many fit in a chunk
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(remaining, size)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large photographs
                images = list(pool.map(partial(_decode, image_size=image_size, first=first), chunk))
            first = first or (chunk[0].where, images[0].shape)
            size = max(1, min(CHUNK, CHUNK_BYTES // images[0].nbytes))
            labels = [item.label for item in chunk if item.label is not None]
            yield Batch(chunk[0].where, np.stack(images), np.array(labels, dtype=np.int64) if labels else None)


def same_shape(first: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> None:
    """Raise a DataError that names both images where their shapes (H, W, C) differ."""
    (here, (h, w, c)), (there, (h2, w2, c2)) = first, other
    if c != c2:
        kinds = {1: "grayscale", 3: "colour"}
        raise DataError(
            f"{here} is {kinds.get(c, c)} and {there} is {kinds.get(c2, c2)}: convert the images of one data set "
            f"to the same kind"
        )
    if (h, w) != (h2, w2):
        raise DataError(
            f"images of mixed sizes: {here} is {w}×{h} and {there} is {w2}×{h2}: give --image-size to crop and "
            f"resize them all"
        )


def fit_array(images: NDArray[np.uint8], image_size: int | None) -> NDArray[np.uint8]:
    """Images (n, H, W, C) cropped and resized to (n, image_size, image_size, C); unchanged without a size."""
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    from PIL import Image

    gray = images.shape[3] == 1
    fitted = [_fit(Image.fromarray(image[..., 0] if gray else image), image_size) for image in images]
    return np.stack([_pixels(image) for image in fitted])


def _decode(item: Encoded, image_size: int | None, first: tuple[str, tuple[int, ...]] | None) -> NDArray[np.uint8]:
    """The image as (H, W, C).  first: name and shape of the image whose shape it must have."""
    pixels = decode_image(
        item.content, item.where, lambda image: _pixels(image if image_size is None else _fit(image, image_size))
    )
    if first is not None:
        same_shape(first, (item.where, pixels.shape))
    return pixels


def _fit(image: Image, size: int) -> Image:
    """The largest centred square, resized with Pillow's bicubic filter, which widens when it shrinks."""
    from PIL import Image as pillow

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # resize(box=…) would blend in outer pixels
    return square.resize((size, size), pillow.Resampling.BICUBIC)


def _pixels(image: Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
