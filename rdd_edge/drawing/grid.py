"""Images laid out in a grid, as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dependencies import import_or_explain
from ..errors import UsageError
from ..files import write_bytes

GAP = 2  # pixels between images
MOST_PIXELS = 1 << 26  # of a grid
TITLE = 16  # pixels of the row of titles
SIDE = 48  # pixels to which the shorter side of a smaller image is magnified


def grid_png(
    images: NDArray[np.uint8], columns: int | None = None, side: int = SIDE, titles: Sequence[str] = ()
) -> bytes:
    """A PNG of images (N, H, W, C), C 1 or 3, row by row with transparent gaps.

    columns: by default as many as rows.  Images smaller than `side` are magnified by an integer factor.
    titles: of the columns, or of the whole grid where there is one; shortened to the width that they have.
    """
    if len(images) == 0 or images.shape[3] not in (1, 3):
        raise UsageError(f"images of shape {images.shape} cannot be drawn: give (N, H, W, 1 or 3) with N at least 1")
    pillow = import_or_explain("PIL.Image", "drawing images", "report")
    columns = columns or math.ceil(math.sqrt(len(images)))
    picture = pillow.fromarray(_layout(images, columns, side))
    if titles and len(titles) in (1, columns):
        picture = _titled(picture, titles)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_grid(images: NDArray[np.uint8], path: Path, columns: int | None = None, titles: Sequence[str] = ()) -> None:
    """Write `grid_png` to a file."""
    write_bytes(path, grid_png(images, columns, titles=titles))


def _titled(picture: Any, titles: Sequence[str]) -> Any:
    """The picture below a white row with a title at the left of each of its equal columns."""
    pillow, draw = import_or_explain("PIL.Image", "", "report"), import_or_explain("PIL.ImageDraw", "", "report")
    result = pillow.new("RGBA", (picture.width, picture.height + TITLE), "white")
    result.paste(picture, (0, TITLE))
    canvas, width = draw.Draw(result), (picture.width + GAP) / len(titles)
    for i, title in enumerate(titles):
        while title and canvas.textlength(title) > width - 2 * GAP:
            title = title[:-1]
        canvas.text((round(i * width) + GAP, GAP), title, fill="black")
    return result


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """|a - b| of images (N, H, W, C), amplified to be visible, and the factor.

    The factor is the largest power of two, 1 … 64, that leaves 999 of 1000 values unclipped.
    """
    absolute = np.abs(a.astype(np.int16) - b.astype(np.int16))
    top = max(float(np.percentile(absolute, 99.9)), 1.0)
    factor = min(64, 2 ** int(math.log2(255.0 / top)))
    return np.minimum(absolute * factor, 255).astype(np.uint8), factor


def _layout(images: NDArray[np.uint8], columns: int, side: int) -> NDArray[np.uint8]:
    """RGBA canvas (rows, columns, 4). Raises UsageError for one of more than MOST_PIXELS."""
    n, h, w, _ = images.shape
    rows, factor = math.ceil(n / columns), max(1, math.ceil(side / min(h, w)))
    height, width = rows * (h * factor + GAP) - GAP, columns * (w * factor + GAP) - GAP
    if height * width > MOST_PIXELS:
        raise UsageError(f"a grid of {n} images would have {height} x {width} pixels: draw fewer or smaller images")
    h, w = h * factor, w * factor
    canvas = np.zeros((height, width, 4), np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * (h + GAP), i % columns * (w + GAP)
        canvas[y : y + h, x : x + w, :3] = image.repeat(factor, axis=0).repeat(factor, axis=1)
        canvas[y : y + h, x : x + w, 3] = 255
    return canvas
