"""The classes of a conditional model, by name, from the command line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from commands import run
from numpy.typing import NDArray
from PIL import Image

from rdd_edge.api import sample
from rdd_edge.drawing.grid import TITLE, grid_png


def test_images_of_named_classes(
    tmp_path: Path, tiny_conditional_checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """--class three --class 0: columns with these titles, and each image that of the API for its label."""
    out = tmp_path / "grid.png"
    words = ("--class", "three", "--class", "0", "--n", 4, "--out", out)
    code, _, err = run(monkeypatch, capsys, "sample", tiny_conditional_checkpoint, *words)
    assert code == 0, err
    images = sample(tiny_conditional_checkpoint, n=4, classes=["3", "zero"])
    assert out.read_bytes() == grid_png(images, 2, titles=("three", "zero"))
    drawn = np.asarray(Image.open(io.BytesIO(out.read_bytes())))
    assert (drawn[:TITLE, :, :3].min(axis=(0, 2)) < 128).any()  # ink of the titles
    every: NDArray[np.uint8] = sample(tiny_conditional_checkpoint, n=4)  # labels 0, 1, 2, 3
    same = [bool((a == b).all()) for a, b in zip(images, every, strict=True)]
    assert same == [False, False, False, False]
    np.testing.assert_array_equal(sample(tiny_conditional_checkpoint, n=4, classes=["0", "1", "2", "3"]), every)


@pytest.mark.parametrize(("name", "sentence"), [("ten", "has no class 'ten': choose from zero, one"), ("10", "'10'")])
def test_an_unknown_class(
    tiny_conditional_checkpoint: Path, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--class", name, "--out", "grid.png")
    code, _, err = run(monkeypatch, capsys, "sample", tiny_conditional_checkpoint, *words)
    assert code == 2 and sentence in err


def test_an_unconditional_model_has_no_classes(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, "sample", tiny_checkpoint, "--class", "cat", "--out", "grid.png")
    assert code == 2 and "is not class-conditional; train with --conditional" in err
