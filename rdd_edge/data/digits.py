"""The embedded default: the 1,797 handwritten digits that scikit-learn bundles (8x8, UCI ML repository)."""

from __future__ import annotations

import numpy as np

from ..dependencies import import_or_explain
from .images import ImageSet, content_sha256

__all__ = ["load_digits"]


def load_digits() -> ImageSet:
    """Digits (1797, 8, 8, 1) with their ten classes; the source's 0 … 16 becomes 0 … 255."""
    found = import_or_explain("sklearn.datasets", "the digits data set", "distill").load_digits()
    images = np.round(found.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    labels = found.target.astype(np.int64)
    classes = tuple(str(digit) for digit in range(10))
    return ImageSet("digits", images, labels, classes, content_sha256(images, labels, classes))
