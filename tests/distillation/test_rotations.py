"""Images without labels: the rotations that stand for classes, and a whole run from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image
from tiny import TINY

from rdd_edge.data import load_images
from rdd_edge.distillation.batches import ImageBatches
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import Compute
from rdd_edge.distillation.rotations import RotatedBatches, rotations


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 4), ((3, 8, 6), 2)])
def test_each_row_is_an_image_in_one_rotation(shape: tuple[int, int, int], classes: int) -> None:
    from rdd_edge.data import ImageSet

    channels, height, width = shape
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, channels)).astype(np.uint8)
    plain = ImageBatches(ImageSet("x", images, None, None, "0" * 64), ComputeContext(torch.device("cpu"), Compute()))
    assert rotations(shape) == classes
    turned = RotatedBatches(plain, classes)
    assert turned.count == 3 * classes
    index = torch.tensor([5, 0, classes + 1, 2 * classes - 1])
    assert turned.labels(index).tolist() == [int(i) % classes for i in index]
    for row, i in zip(turned.images(index), index.tolist(), strict=True):
        original = plain.images(torch.tensor([i // classes]))[0]
        torch.testing.assert_close(row, original.rot90(i % classes * (4 // classes), (1, 2)))


def test_a_folder_without_labels_becomes_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RDD with its extractor, judge and refining, then an evaluation by the judge."""
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(load_images("digits").images[:60]):
        Image.fromarray(image[..., 0]).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    settings = [*TINY, "first_steps=2", "base_steps=2", "extractor_training.batch=32", "judge_training.batch=32"]
    words = [word for setting in settings for word in ("--set", setting)]
    folder = tmp_path / "run"
    code, _, err = run(monkeypatch, capsys, "distill", "--data", tmp_path / "photos", *words, "--out", folder)
    assert code == 0, err
    for name in ("extractor", "judge"):
        assert json.loads((folder / name / "config.json").read_text())["classes"] == 4
    code, out, err = run(monkeypatch, capsys, "evaluate", folder, "--n", 20)
    assert code == 0 and "fd_digits_cnn" in out, err
