"""Image sources as one uint8 array: `load_images` takes "digits" or a path."""

from __future__ import annotations

from ..errors import UsageError
from .digits import load_digits
from .images import ImageSet, split

__all__ = ["ImageSet", "load_images", "split"]


def load_images(spec: str, image_size: int | None = None) -> ImageSet:
    if spec == "digits":
        return load_digits()
    raise UsageError(f"no {spec}")
