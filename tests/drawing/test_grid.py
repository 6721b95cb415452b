"""Grids, read back with Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdd_edge.drawing.grid import difference, grid_png, save_grid
from rdd_edge.errors import UsageError


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_where_it_belongs(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels)).astype(np.uint8)
    drawn = pixels(grid_png(images, columns=3, side=4))
    assert drawn.shape == (2 * 4 + 2, 3 * 6 + 4, 4)
    np.testing.assert_array_equal(drawn[6:10, 8:14, :3], np.broadcast_to(images[4], (4, 6, 3)))
    assert (drawn[6:10, 16:, 3] == 0).all()  # no sixth image
    assert (drawn[4:6, :, 3] == 0).all()  # the gap


def test_small_images_are_magnified_by_whole_pixels(tmp_path: Path) -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    save_grid(image, tmp_path / "grid.png")
    drawn = pixels((tmp_path / "grid.png").read_bytes())
    assert drawn.shape == (48, 48, 4)
    np.testing.assert_array_equal(drawn[::6, ::6, 0], image[0, :, :, 0])


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (2, 4, 4, 2)])
def test_what_cannot_be_drawn_is_a_sentence(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="cannot be drawn"):
        grid_png(np.zeros(shape, np.uint8))


def test_difference_is_amplified_by_a_power_of_two() -> None:
    a = np.zeros((1, 8, 8, 1), np.uint8)
    b = a.copy()
    b[0, :, 0] = 3
    shown, factor = difference(a, b)
    assert factor == 64
    np.testing.assert_array_equal(shown, b * 64)
    b[:] = 200
    assert difference(a, b)[1] == 1
    assert difference(a, a)[0].max() == 0
