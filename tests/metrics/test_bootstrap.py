"""The influence function against finite differences, and its interval against a plain bootstrap of images."""

from __future__ import annotations

import numpy as np
import pytest

from rdd_edge.metrics.bootstrap import influences, interval
from rdd_edge.metrics.frechet import Statistics, frechet_distance


def features(seed: int, count: int, dims: int = 6, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((dims, dims))
    return (scale * rng.standard_normal((count, dims)) @ mix + 0.2 * seed).astype(np.float32)


@pytest.mark.parametrize("row", [0, 7, 42])
def test_influence_is_the_derivative_by_one_samples_weight(row: int) -> None:
    """d/dw of the distance of the weighted samples, with w more weight on one of them, is its φ."""
    x, real = features(1, 400).astype(np.float64), Statistics.of(features(2, 500, scale=1.3))
    phi = influences(x.astype(np.float32), Statistics.of(x), real)

    def distance(extra: float) -> float:
        w = np.full(len(x), (1 - extra) / len(x))
        w[row] += extra
        mean = w @ x
        cov = ((x - mean) * w[:, None]).T @ (x - mean)
        return frechet_distance(Statistics(mean, cov, len(x)), real)

    h = 1e-5
    assert phi[row] == pytest.approx((distance(h) - distance(-h)) / (2 * h), rel=0.02, abs=0.02)


def test_interval_agrees_with_a_bootstrap_of_images() -> None:
    count = 600
    b = features(1, count)
    a = b + 0.4 * np.random.default_rng(5).standard_normal(b.shape).astype(np.float32)
    real = Statistics.of(features(2, 2000))
    low, high = interval(influences(a, Statistics.of(a), real) - influences(b, Statistics.of(b), real))
    rng, rises = np.random.default_rng(8), []
    for _ in range(400):
        rows = rng.integers(0, count, count)
        rises.append(frechet_distance(Statistics.of(a[rows]), real) - frechet_distance(Statistics.of(b[rows]), real))
    plain = np.subtract(*np.quantile(rises, [0.975, 0.025]))
    assert high - low == pytest.approx(plain, rel=0.2)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Over many pairs of runs of a net and its degraded copy, the rise of very many samples is inside the interval."""
    real = Statistics.of(features(2, 4000))

    def pair(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(1000 + seed)
        mix = np.random.default_rng(99).standard_normal((6, 6))
        b = (rng.standard_normal((count, 6)) @ mix).astype(np.float32)
        return b + (0.3 * rng.standard_normal(b.shape)).astype(np.float32), b

    def rise(a: np.ndarray, b: np.ndarray) -> float:
        return frechet_distance(Statistics.of(a), real) - frechet_distance(Statistics.of(b), real)

    truth = rise(*pair(0, 200_000))
    inside = 0
    for seed in range(1, 61):
        a, b = pair(seed, 800)
        low, high = interval(influences(a, Statistics.of(a), real) - influences(b, Statistics.of(b), real))
        inside += rise(a, b) + low <= truth <= rise(a, b) + high
    assert 50 <= inside <= 60


def test_equal_runs_have_no_spread() -> None:
    x = features(1, 100)
    phi = influences(x, Statistics.of(x), Statistics.of(features(2, 100)))
    assert interval(phi - phi) == (0.0, 0.0)


def test_a_feature_without_variance_has_no_influence() -> None:
    x = np.concatenate([features(1, 100), np.zeros((100, 1), np.float32)], axis=1)
    real = features(2, 100)
    alone = influences(x[:, :6], Statistics.of(x[:, :6]), Statistics.of(real))
    padded = np.concatenate([real, np.zeros((100, 1), np.float32)], axis=1)
    np.testing.assert_allclose(influences(x, Statistics.of(x), Statistics.of(padded)), alone, rtol=1e-6, atol=1e-6)
