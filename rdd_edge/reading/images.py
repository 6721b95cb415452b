"""Encoded images, in the formats of photographs and drawings, decoded in bounded memory."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import DataError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # never one that starts another program, as EPS does
MOST_PIXELS = 1 << 26
LARGE_PIXELS = 1 << 22  # larger images are decoded and used one at a time, since each takes ten bytes for a pixel
GRAY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

Result = TypeVar("Result")
_one_large = threading.Lock()


def decode_image(content: bytes | Path, where: object, use: Callable[[Image], Result]) -> Result:
    """What `use` makes of an upright image of mode L or RGB, whose alpha is dropped.  where: for messages.

    Raises DataError for what is not an image, has more than 8 bits per channel, or more than MOST_PIXELS pixels.
    """
    with ExitStack() as held:
        return use(_decoded(content, where, held))


def _decoded(content: bytes | Path, where: object, held: ExitStack) -> Image:
    """The image; for a large one, `held` keeps the lock of those."""
    from PIL import Image as pillow
    from PIL import ImageOps

    problem = None
    try:
        with pillow.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as opened:
            width, height = opened.size
            if problem := _problem(width * height, opened.mode):
                raise ValueError(problem)
            if width * height > LARGE_PIXELS:
                held.enter_context(_one_large)
            ImageOps.exif_transpose(opened, in_place=True)
            return opened.convert("L" if opened.mode in GRAY_MODES else "RGB")
    except Exception as error:  # Pillow alone runs here, whose decoders raise many types for a broken file
        reason = problem or f"is not a readable image: {first_line(error)}"
        raise DataError(f"{where} {reason}") from None


def _problem(pixels: int, mode: str) -> str | None:
    if mode in DEEP_MODES:
        return "has more than 8 bits per channel: convert it to 8"
    return f"has {pixels} pixels: shrink it to at most {MOST_PIXELS}" if pixels > MOST_PIXELS else None
