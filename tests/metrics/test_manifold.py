"""Precision, recall, density and coverage against their definitions, on collapses, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist
from tiny import as_rank

from rdd_edge.errors import DataError
from rdd_edge.metrics.bootstrap import interval
from rdd_edge.metrics.manifold import Manifold, RealManifold, manifold_metrics
from rdd_edge.metrics.neighbors import by_row, nearest_others

NAMES = ("precision", "recall", "density", "coverage")


def features(seed: int, count: int, dims: int = 8, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((count, dims))).astype(np.float32)


def values(found: Manifold) -> list[float]:
    return [getattr(found, name).value for name in NAMES]


def naive(fake: np.ndarray, real: np.ndarray) -> list[float]:
    """The definitions, as in the `prdc` package, whose balls are open, with k = 3 and 5."""

    def radius(x: np.ndarray, k: int) -> np.ndarray:
        return np.sort(cdist(x, x), axis=1)[:, k]  # the first is the image itself

    d = cdist(real, fake)
    precision = (d < radius(real, 3)[:, None]).any(axis=0).mean()
    recall = (d < radius(fake, 3)[None]).any(axis=1).mean()
    density = (d < radius(real, 5)[:, None]).sum(axis=0).mean() / 5
    coverage = (d.min(axis=1) < radius(real, 5)).mean()
    return [precision, recall, density, coverage]


@pytest.mark.parametrize(("count", "scale"), [(300, 1.0), (700, 1.3), (4200, 0.6)])
def test_metrics_are_their_definitions(count: int, scale: float) -> None:
    """More than one block of rows, and more than one part of columns."""
    real, fake = features(1, 600), features(2, count, scale=scale)
    assert_allclose(values(manifold_metrics(fake, RealManifold.of(real))), naive(fake, real), rtol=1e-12)


def test_neighbors_are_found_in_order() -> None:
    x = np.random.default_rng(3).integers(0, 256, (700, 20), dtype=np.uint8)
    squared, index = nearest_others(x, 4)
    d = ((x[:, None].astype(int) - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(d, d.max() + 1)
    np.testing.assert_array_equal(squared, np.sort(d, axis=1)[:, :4])
    np.testing.assert_array_equal(np.take_along_axis(d, index, axis=1), squared)
    with pytest.raises(DataError, match="at least 5"):
        nearest_others(x[:4], 4)


def test_no_more_than_a_block_of_rows_is_held() -> None:
    seen = []

    def measure(index: np.ndarray, d: np.ndarray) -> np.ndarray:
        seen.append(d.shape)
        return index[:, None].astype(float)

    found = by_row(features(1, 600), features(2, 5000), 1, measure)
    assert seen == [(256, 5000), (256, 5000), (88, 5000)]
    np.testing.assert_array_equal(found[:, 0], np.arange(600))


def test_a_process_measures_its_own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdd_edge.metrics.neighbors.gather_arrays", lambda own: [own])
    x = features(1, 600)
    parts = []
    for rank in range(2):
        with as_rank(rank, 2):
            parts.append(nearest_others(x, 3)[0])
    assert [len(part) for part in parts] == [256, 344]
    np.testing.assert_array_equal(np.concatenate(parts), nearest_others(x, 3)[0])


def test_a_generator_that_repeats_one_image_has_no_recall_and_no_coverage() -> None:
    real = features(1, 600)
    found = manifold_metrics(np.repeat(real[7:8], 500, axis=0), RealManifold.of(real))
    assert found.precision.value == 1.0
    assert found.recall.value <= 1 / 600
    assert found.coverage.value < 0.02


def test_a_generator_of_noise_has_no_precision() -> None:
    found = manifold_metrics(features(2, 500, scale=6.0), RealManifold.of(features(1, 600)))
    assert found.precision.value < 0.02 and found.density.value < 0.02 and found.coverage.value < 0.02


def test_real_images_have_the_values_that_are_expected_of_them() -> None:
    """The mean over 40 pairs of sets of one distribution, of other sizes."""
    found, expected = [], []
    for seed in range(40):
        real = RealManifold.of(features(seed, 300))
        found.append(values(manifold_metrics(features(100 + seed, 450), real)))
        expected.append([real.within, real.within, 1.0, real.expected_coverage(450)])
    assert_allclose(np.mean(found, axis=0), np.mean(expected, axis=0), atol=0.015)


def test_an_influence_is_what_a_sample_contributes() -> None:
    """Precision, density and coverage without a sample; the balls around samples stay, so recall has its own test."""
    fake, real = features(2, 60, scale=1.2), RealManifold.of(features(1, 90))
    found = manifold_metrics(fake, real)
    for name in ("precision", "density", "coverage"):
        whole = getattr(found, name)
        changes = [
            59 * (whole.value - getattr(manifold_metrics(np.delete(fake, j, axis=0), real), name).value)
            for j in range(60)
        ]
        assert_allclose(whole.influences, np.array(changes) - np.mean(changes), atol=1e-9)


def test_recall_without_the_ball_of_a_sample() -> None:
    fake, real = features(2, 60, scale=1.2), features(1, 90)
    phi = manifold_metrics(fake, RealManifold.of(real)).recall.influences
    radii = np.sqrt(nearest_others(fake, 3)[0][:, -1])
    inside = np.linalg.norm(real[:, None] - fake[None], axis=2) <= radii
    changes = np.array([59 * (inside.any(1).mean() - np.delete(inside, j, 1).any(1).mean()) for j in range(60)])
    assert np.ptp(changes) > 0
    assert_allclose(phi, changes - changes.mean(), atol=1e-9)


def test_intervals_hold_the_mean_over_other_samples() -> None:
    """Of a generator that rarely draws half of the modes: a spread over reals alone would be half of what it is."""
    modes = 3.0 * np.random.default_rng(9).standard_normal((10, 4))

    def draw(seed: int, count: int, rare: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        p = np.where(np.arange(10) < 5, 1.0, rare)
        return (modes[rng.choice(10, count, p=p / p.sum())] + rng.standard_normal((count, 4))).astype(np.float32)

    real = RealManifold.of(draw(0, 300, 1.0))
    found = [manifold_metrics(draw(seed, 300, 0.1), real) for seed in range(1, 41)]
    for name in NAMES:
        runs = [getattr(one, name) for one in found]
        mean = np.mean([run.value for run in runs])
        inside = [abs(run.value - mean) <= np.ptp(interval(run.influences)) / 2 for run in runs]
        assert 36 <= sum(inside) <= 40, name
