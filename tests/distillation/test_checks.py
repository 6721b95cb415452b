"""Bad input: one sentence each, before any training starts and before any folder is created."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY, Recorder, tiny, train

from rdd_edge.data import ImageSet, load_images
from rdd_edge.distillation.checks import check
from rdd_edge.distillation.config import Preset
from rdd_edge.distillation.presets import PRESETS, resolve
from rdd_edge.errors import DataError, RddEdgeError, UsageError
from rdd_edge.evaluation.ablation import study
from rdd_edge.evaluation.checkpoint import evaluate
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.metrics.classifiers import save_classifier
from rdd_edge.metrics.networks import Classifier, ExtractorConfig


def blank_images(count: int = 40, side: int = 32, channels: int = 3, classes: int = 2) -> ImageSet:
    images = np.zeros((count, side, side, channels), np.uint8)
    names = tuple(map(str, range(classes)))
    return ImageSet("blank", images, np.arange(count) % classes, names, "0" * 64)


BAD: dict[str, tuple[Preset, ImageSet | None, type[RddEdgeError], str]] = {
    "no labels, conditional": (
        tiny("conditional=true"), replace(load_images("digits"), labels=None, classes=None), DataError, "has no labels",
    ),
    "three images": (tiny(), blank_images(3), DataError, "blank has 3 images: give at least 4"),
    "phi that decreases": (
        resolve("digits", method="sfddm", subsequence="5,1,16", settings=TINY), None, UsageError, "does not increase",
    ),
    "a size the levels do not divide": (
        resolve("cifar10"), blank_images(side=30), UsageError,
        "network halves images 3 times, and 30 x 30 pixels are not multiples of 8: use a different --image-size",
    ),
    "a student of such levels": (
        tiny("student={\"channels\": [4, 4, 4, 4, 4], \"blocks\": 1, \"groups\": 4}"), None, UsageError,
        "student halves images 4 times, and 8 x 8 pixels are not multiples of 16",
    ),
    "channels that are no groups": (
        tiny("network.groups=5"), None, UsageError, r"network cannot be built for images of 1x8x8 .*num_channels",
    ),
    "an extractor deeper than the images": (
        tiny("extractor.widths=[1,1,1,1,1]"), None, UsageError, r"extractor cannot be built .*1x8x8 .*too small",
    ),
    "a queue smaller than what is drawn": (
        tiny("memory.draw=31"), None, UsageError, "memory.draw is 31 and memory.capacity 30",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_cannot_be_is_refused(tmp_path, name):
    preset, data, kind, says = BAD[name]
    reporter = Recorder()
    with pytest.raises(kind, match=says) as caught:
        train(preset, tmp_path / "run", reporter, data=data, device="cpu")
    assert "\n" not in str(caught.value)
    assert reporter.stages == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "side", "classes"),
    [
        ("digits", 8, 10),
        ("small", 16, 2),
        ("small", 64, 3),
        ("cifar10", 32, 10),
        ("cifar10-edge", 32, 10),
        ("imagenet64", 64, 7),
    ],
)
def test_every_preset_fits_its_data_and_a_check_changes_no_draw(name, side, classes):
    before = torch.get_rng_state()
    assert check(PRESETS[name], blank_images(10, side, 1 if name == "digits" else 3, classes)) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("side", "levels"), [(8, 2), (16, 2), (28, 3), (30, 2), (32, 3), (48, 4), (64, 4), (128, 4)])
def test_the_small_preset_has_levels_for_the_image_size(side, levels):
    chosen = resolve("small", image_size=side)
    assert len(chosen.network.channels) == len(chosen.extractor.widths) == len(chosen.judge.widths) == levels
    check(chosen, blank_images(10, side))


def test_a_network_that_the_user_gives_is_kept(tmp_path):
    (tmp_path / "my.toml").write_text("image_size = 64\n[network]\nchannels = [8, 16]\n")
    assert resolve("small", config=tmp_path / "my.toml").network.channels == (8, 16)
    assert resolve("small", image_size=64, settings=["network.channels=8,8"]).network.channels == (8, 8)


def test_an_extractor_for_another_image_size_is_refused(tmp_path):
    shape = ExtractorConfig(name="other", architecture="cnn", widths=(4,), image_shape=(1, 16, 16), classes=10)
    save_classifier(tmp_path / "other", Classifier(shape))
    with pytest.raises(UsageError, match=r"is for images of \(1, 16, 16\).* and digits has \(1, 8, 8\)"):
        evaluation_sources(None, "digits", tmp_path / "other")


def test_too_few_samples_are_refused_before_any_is_drawn(tmp_path, monkeypatch, tiny_checkpoint):
    shape = ExtractorConfig(name="judge", architecture="cnn", widths=(4,), image_shape=(1, 8, 8), classes=10)
    save_classifier(tmp_path / "judge", Classifier(shape))
    real, judge = evaluation_sources(None, "digits", tmp_path / "judge")
    monkeypatch.setattr("rdd_edge.evaluation.checkpoint.sample_images", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(DataError, match="--n 3 is too few samples: give at least 4"):
        evaluate(tiny_checkpoint, (1,), 3, 0, real, judge)
    with pytest.raises(DataError, match="--n 3 is too few samples: give at least 4"):
        study(tiny(), "alpha", [1.0, 2.0], tmp_path / "study", count=3)
    assert not (tmp_path / "study").exists()
