"""Budgets of mixed precision: what they measure of an artifact's images, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rdd_edge.api import _budget
from rdd_edge.data import ImageSet
from rdd_edge.errors import UsageError
from rdd_edge.exporting.budget import FdBudget, PsnrBudget
from rdd_edge.metrics.frechet import StatisticsAccumulator, frechet_distance
from rdd_edge.portable.noise import to_uint8

GENERATOR = np.random.default_rng(0)


class Means:
    """Mean of the upper and of the lower half of an image."""

    name, sha256, device = "means", hashlib.sha256(b"means").hexdigest(), "cpu"

    def batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        halves = images.reshape(len(images), 2, -1)
        yield halves.mean(axis=2).astype(np.float32)


def real_images() -> ImageSet:
    pixels = GENERATOR.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    return ImageSet("random", pixels, None, None, hashlib.sha256(pixels.tobytes()).hexdigest())


def test_psnr_is_the_median_over_images() -> None:
    student = np.zeros((3, 1, 2, 2), np.float32)
    x = student + np.array([0.02, 0.2, 0.002], np.float32)[:, None, None, None]
    budget = PsnrBudget(39.0)
    assert budget.against(student)(x) == pytest.approx(40.0, abs=1e-3)
    assert budget.met(40.0) and not budget.met(38.9)
    assert budget.allowed(29.0) == pytest.approx(0.1)


def test_fd_rise_is_the_distance_beside_the_students() -> None:
    real, means = real_images(), Means()
    student = GENERATOR.uniform(-1, 1, (100, 1, 8, 8)).astype(np.float32) * 0.9
    x = np.clip(student + 0.1, -1, 1)

    def distance(images: NDArray[np.uint8]) -> float:
        pair = [StatisticsAccumulator().add_all(means.batches(part)).result() for part in (images, real.images)]
        return frechet_distance(*pair)

    budget = FdBudget(0.02, real, means)
    assert budget.against(student)(x) == pytest.approx(
        distance(to_uint8(x)) / distance(to_uint8(student)) - 1, rel=1e-6
    )
    assert budget.against(student)(student) == 0.0
    assert budget.met(0.02) and not budget.met(0.021)
    assert budget.text(0.034) == "a Fréchet distance +3.40% from the student's"


@pytest.mark.parametrize(
    ("min_psnr", "max_fd_rise", "data", "sentence"),
    [
        (40.0, 0.02, None, "cannot be combined"),
        (40.0, None, "digits", "--data and --extractor are for the Fréchet distance"),
    ],
)
def test_what_no_budget_can_be_made_of(
    min_psnr: float | None, max_fd_rise: float | None, data: str | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        _budget(Path("none"), min_psnr, max_fd_rise, data, None)
