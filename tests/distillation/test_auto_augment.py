"""AutoAugment: each operation beside Pillow's, the table's sub-policies at their rates, draws that belong to a row."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from tiny import as_rank

from rdd_edge.distillation import auto_augment as module
from rdd_edge.distillation.augmentation import augment
from rdd_edge.distillation.auto_augment import OPERATIONS, POLICY, Operation, auto_augment
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import ClassifierTraining
from rdd_edge.distillation.presets import PRESETS
from rdd_edge.distributed import current

ALONE = ComputeContext(torch.device("cpu"))
GREY = (128, 128, 128)


def affine(image: Image.Image, *six: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, six, fillcolor=GREY)


PILLOW = {
    "shear_x": lambda image, m: affine(image, 1, m, 0, 0, 1, 0),
    "shear_y": lambda image, m: affine(image, 1, 0, 0, m, 1, 0),
    "translate_x": lambda image, m: affine(image, 1, 0, round(m * image.width), 0, 1, 0),
    "translate_y": lambda image, m: affine(image, 1, 0, 0, 0, 1, round(m * image.height)),
    "rotate": lambda image, m: image.rotate(m, fillcolor=GREY),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(m),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(m),
    "posterize": lambda image, m: ImageOps.posterize(image, round(m)),
    "solarize": lambda image, m: ImageOps.solarize(image, m),
    "invert": lambda image, m: ImageOps.invert(image),
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
}
GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def photographs(count: int = 6, side: int = 32) -> np.ndarray:
    """Smooth images that do not reach 0 or 255, one with few values and one with a single one."""
    draws = np.random.default_rng(0)
    small = draws.integers(30, 220, (count, 5, 5, 3), dtype=np.uint8)
    found = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) for image in small]
    found[-2] = found[-2] // 64 * 64
    found[-1] = np.full_like(found[-1], 77)
    return np.stack(found)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0, 2, 5, 9])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_operation_is_pillows(name, magnitude, sign):
    images, operation = photographs(), OPERATIONS[name]
    m = operation.start + sign * operation.span * magnitude / 9
    if not operation.signed and sign < 0:
        m = operation.start + operation.span * magnitude / 9
    if name in GEOMETRY:
        m += 0.003  # at some magnitudes whole lines of pixels lie between two of the source, where rounding decides
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    found = operation.apply(x, torch.full((len(x),), m)).permute(0, 2, 3, 1).numpy()
    expected = np.stack([np.asarray(PILLOW[name](Image.fromarray(image), m)) for image in images]).astype(np.float32)
    assert found.min() >= 0 and found.max() <= 255 and (found == found.round()).all()
    if name in GEOMETRY:  # Pillow steps through an image in 16 bits
        assert (found != expected).any(-1).mean() < 0.01
    else:
        assert np.abs(found - expected).max() <= 1
        assert (found != expected).mean() < 0.02


def test_all_operations_of_the_table_are_there_and_none_else():
    assert {name for policy in POLICY for name, _, _ in policy} | {"shear_x"} == set(OPERATIONS) == set(PILLOW)
    assert len(POLICY) == 25
    assert all(
        0 <= probability <= 1 and 0 <= magnitude <= 9 for policy in POLICY for _, probability, magnitude in policy
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 9) -> torch.Tensor:
    images = torch.from_numpy(photographs()).permute(0, 3, 1, 2)
    return images[torch.arange(count) % 4].float() / 127.5 - 1


def test_each_sub_policy_is_drawn_and_applied_at_its_rate(monkeypatch):
    """Operations that leave marks in place of what they compute."""
    marks = {name: 3.0**place for place, name in enumerate(OPERATIONS)}
    marked = {name: Operation(lambda x, m, mark=mark: x + mark) for name, mark in marks.items()}
    monkeypatch.setattr(module, "OPERATIONS", marked)
    count = 40_000
    x = auto_augment(-torch.ones(count, 1, 1, 1, dtype=torch.float64), generator(), ALONE, count)
    found = ((x + 1) * 127.5).round().view(-1)
    for place, name in enumerate(OPERATIONS):
        times = (found / 3.0**place).floor() % 3
        expected = sum(probability for policy in POLICY for own, probability, _ in policy if own == name) / len(POLICY)
        assert times.mean().item() == pytest.approx(expected, abs=0.006), name


def test_images_stay_images_and_most_change():
    x = auto_augment(batch(200), generator(), ALONE, 200)
    pixels = (x + 1) * 127.5
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)
    assert pixels.min() >= 0 and pixels.max() <= 255
    assert 0.6 < (x != batch(200)).flatten(1).any(1).float().mean() < 0.999


def test_grey_images_can_be_augmented():
    x = batch(200)[:, :1]
    assert auto_augment(x, generator(), ALONE, 200).shape == x.shape


@pytest.mark.parametrize("side", [32, 64])
def test_a_process_augments_its_rows_as_one_would(side):
    x = torch.nn.functional.interpolate(batch(9), size=side)
    whole = auto_augment(x, generator(3), ALONE, 9)
    parts = []
    for rank in range(2):
        with as_rank(rank, 2):
            parts.append(auto_augment(x[current().rows(9)], generator(3), ALONE, 9))
    assert torch.equal(torch.cat(parts), whole)


def test_the_presets_of_photographs_use_it_and_the_digits_draw_nothing_for_it(monkeypatch):
    assert {name for name, preset in PRESETS.items() if preset.extractor_training.auto_augment} == {
        "cifar10", "cifar10-edge", "imagenet64",
    }  # fmt: skip
    training = ClassifierTraining(epochs=1, batch=9, shift=4, cutout=16, flip=True, auto_augment=True)
    augmented = augment(batch(9), training, generator(), ALONE, 9)
    without = training.model_copy(update={"auto_augment": False})
    monkeypatch.setattr("rdd_edge.distillation.augmentation.auto_augment", lambda *_: pytest.fail("drawn"))
    assert not torch.equal(augment(batch(9), without, generator(), ALONE, 9), augmented)
