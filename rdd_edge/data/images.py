"""A data set as one uint8 array, and the digits, which come with scikit-learn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dependencies import import_or_explain
from ..errors import DataError, printable
from ..portable.noise import philox4x32


@dataclass(frozen=True)
class ImageSet:
    """Images and, where the source has them, labels.

    images: (N, H, W, C) uint8, an array or a memory map.  labels: (N,) int64, each an index into `classes`.
    sha256: of the pixels, labels and classes (see `content_sha256`): equal for equal data from different sources.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    sha256: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), the order of networks."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes as records keep them: of printable characters."""
        return None if self.classes is None else tuple(printable(name, 100) for name in self.classes)

    def require_labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Labels and class names. Raises DataError where the source has none."""
        if self.labels is None or self.classes is None:
            raise DataError(
                f"the data set {self.name} has no labels: a conditional model or a classifier needs them, "
                f"for example from a folder with one folder per class"
            )
        return self.labels, self.classes


def content_sha256(images: NDArray[np.uint8], labels: NDArray[np.int64] | None, classes: tuple[str, ...] | None) -> str:
    """SHA-256 of a data set: its shape, its pixels, its labels, its class names, in this order."""
    digest = hashlib.sha256(repr(tuple(int(side) for side in images.shape)).encode())
    for start in range(0, len(images), 4096):
        digest.update(np.ascontiguousarray(images[start : start + 4096]).data)
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    digest.update(repr(classes).encode())
    return digest.hexdigest()


def load_digits() -> ImageSet:
    """The 1,797 handwritten digits that scikit-learn bundles (UCI ML repository): (1797, 8, 8, 1), ten classes.

    The source's 0 … 16 becomes 0 … 255.
    """
    digits = import_or_explain("sklearn.datasets", "the digits data set", "distill").load_digits()
    images = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    classes = tuple(str(digit) for digit in range(10))
    return ImageSet("digits", images, labels, classes, content_sha256(images, labels, classes))


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """0 … count - 1 in a random order, the same for a seed on every machine."""
    counter = np.zeros((count, 4), dtype=np.uint64)
    counter[:, 0] = np.arange(count, dtype=np.uint64)
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable").astype(np.int64)
