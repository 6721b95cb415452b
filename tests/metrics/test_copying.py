"""Near copies: 5 % of new real images, all of a copier's, and a few among many bad ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rdd_edge.data.images import load_digits
from rdd_edge.metrics.copying import Spacing, near_copies, sample_ratios

DIGITS = load_digits()
ORDER = np.random.default_rng(0).permutation(1797)
TRAINING, NEW = DIGITS.images[ORDER[:1200]], DIGITS.images[ORDER[1200:]]
SPACING = Spacing.of(TRAINING)


def copies(samples: np.ndarray) -> tuple[float, float, float]:
    return near_copies(sample_ratios(samples, TRAINING, SPACING), SPACING)


def noisy(images: np.ndarray, levels: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, levels, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def naive_ratio(y: np.ndarray, others: np.ndarray) -> float:
    """|y - x| / |x - x'| of one image among others."""
    flat = others.reshape(len(others), -1).astype(float)
    to_y = np.linalg.norm(flat - y.ravel(), axis=1)
    to_x = np.linalg.norm(flat - flat[to_y.argmin()], axis=1)
    return to_y.min() / np.delete(to_x, to_y.argmin()).min()


def test_ratios_are_their_definition() -> None:
    few = Spacing.of(TRAINING[:60])
    expected = [naive_ratio(TRAINING[i], np.delete(TRAINING[:60], i, axis=0)) for i in range(60)]
    assert_allclose(few.ratios, expected, rtol=1e-12)
    expected = [naive_ratio(y, TRAINING[:60]) for y in NEW[:20]]
    assert_allclose(sample_ratios(NEW[:20], TRAINING[:60], few), expected, rtol=1e-12)


def test_new_real_images_are_near_copies_as_often_as_training_images() -> None:
    shares = []
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(1797)
        training, new = DIGITS.images[order[:1200]], DIGITS.images[order[1200:]]
        spacing = Spacing.of(training)
        assert spacing.real_share == 0.05
        shares.append(near_copies(sample_ratios(new, training, spacing), spacing)[0])
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("levels", [0, 6, 12])
def test_a_copier_is_found_out(levels: int) -> None:
    share, low, _ = copies(noisy(TRAINING[:500], levels))
    assert share > 0.98 and low > 0.95


def test_a_few_copies_among_bad_images_are_found_out() -> None:
    share, low, high = copies(np.concatenate([TRAINING[:150], noisy(NEW, 40)]))
    assert low > 0.05
    assert low < share < high
    assert share == pytest.approx(150 / (150 + len(NEW)), abs=0.01)


def test_good_images_of_the_densest_classes_are_no_copies() -> None:
    """Zeros and ones are closer to one another than other digits, which is no copying."""
    dense = NEW[np.isin(DIGITS.labels[ORDER[1200:]], (0, 1))]
    assert copies(dense)[1] <= 0.05


def test_equal_images_in_the_data() -> None:
    """A tenth of the training images are there twice: real images are then copies as often, and a sample may be one."""
    twice = np.concatenate([TRAINING[:180], TRAINING[:20]])
    spacing = Spacing.of(twice)
    assert spacing.real_share == pytest.approx(40 / 200)
    assert near_copies(sample_ratios(TRAINING[:180], twice, spacing), spacing)[0] == 1.0
    assert near_copies(sample_ratios(NEW, twice, spacing), spacing)[0] == 0.0
