"""The Fréchet distance against closed forms and SciPy's matrix root, and accumulation against one pass."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from rdd_edge.errors import DataError, UsageError
from rdd_edge.metrics import frechet
from rdd_edge.metrics.frechet import Statistics, StatisticsAccumulator, frechet_distance


def features(seed: int, count: int = 500, size: int = 12, offset: float = 0.0) -> NDArray[np.float64]:
    """Correlated features of uneven scale."""
    draws = np.random.default_rng(seed)
    mix = draws.normal(size=(size, size)) * np.geomspace(1e-2, 10, size)
    return draws.normal(size=(count, size)) @ mix + draws.normal(size=size) + offset


def by_scipy(a: Statistics, b: Statistics) -> float:
    root = scipy.linalg.sqrtm(a.cov @ b.cov).real
    return float(np.square(a.mean - b.mean).sum() + np.trace(a.cov + b.cov - 2 * root))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_statistics_are_those_of_numpy(seed: int, offset: float) -> None:
    x = features(seed, offset=offset)
    found = Statistics.of(x)
    assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    assert_allclose(found.cov, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-10)
    assert found.count == 500


@pytest.mark.parametrize("rows", [1, 40, 4096])
@pytest.mark.parametrize("seed", range(10))
def test_any_batches_and_any_merges_equal_one_pass(seed: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "JOINED_ROWS", rows)
    draws = np.random.default_rng(seed)
    x = features(seed, count=int(draws.integers(2, 400)), offset=float(draws.choice([0.0, 1e4])))
    parts = np.split(x, np.sort(draws.integers(0, len(x) + 1, size=int(draws.integers(0, 9)))))  # some are empty
    accumulators = [StatisticsAccumulator().add_all([part]) for part in parts]
    merged = StatisticsAccumulator()
    for place in draws.permutation(len(accumulators)):
        merged.add_state(accumulators[place].state())
    streamed = StatisticsAccumulator().add_all(parts)
    assert streamed.count == len(x)
    expected = StatisticsAccumulator().add_all([x]).result()
    for found in (merged.result(), streamed.result()):
        assert found.count == len(x)
        assert_allclose(found.mean, expected.mean, rtol=1e-12)
        assert_allclose(found.cov, expected.cov, rtol=1e-8, atol=1e-8)


def test_merging_leaves_the_other_alone() -> None:
    a, b = (StatisticsAccumulator().add_all([features(seed)]) for seed in (1, 2))
    empty = StatisticsAccumulator()
    before = b.state()
    empty.add_state(before)
    empty.add_state(a.state())
    np.testing.assert_array_equal(b.state(), before)


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_that_of_scipy_and_symmetric(seed: int) -> None:
    a, b = Statistics.of(features(seed)), Statistics.of(features(seed + 100, count=800))
    assert_allclose(frechet_distance(a, b), by_scipy(a, b), rtol=1e-6)
    assert_allclose(frechet_distance(a, b), frechet_distance(b, a), rtol=1e-10)


@pytest.mark.parametrize("count", [5, 12, 13, 500])
def test_distance_to_itself_is_nothing(count: int) -> None:
    a = Statistics.of(features(0, count=count))
    assert frechet_distance(a, a) <= 1e-7 * np.trace(a.cov)


def test_distance_of_gaussians_whose_covariances_commute() -> None:
    size = 9
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    u, v = np.geomspace(1e-4, 1e2, size), np.geomspace(3, 1e-3, size)
    mean = np.linspace(0, 1, size)
    a = Statistics(np.zeros(size), (rotation * u) @ rotation.T, 100)
    b = Statistics(mean, (rotation * v) @ rotation.T, 100)
    expected = np.square(mean).sum() + np.square(np.sqrt(u) - np.sqrt(v)).sum()
    assert_allclose(frechet_distance(a, b), expected, rtol=1e-10)


def test_distance_in_one_dimension() -> None:
    a, b = Statistics(np.array([1.0]), np.array([[4.0]]), 9), Statistics(np.array([-2.0]), np.array([[0.25]]), 9)
    assert_allclose(frechet_distance(a, b), 9 + 1.5**2)


def test_distance_of_singular_covariances() -> None:
    """Points of a plane against points of a line in it: both known in the plane."""
    plane = np.random.default_rng(1).normal(size=(300, 2)) * [3.0, 1.0]
    line = plane * [1.0, 0.0]
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 2)))[0]
    a, b = Statistics.of(plane @ basis.T), Statistics.of(line @ basis.T)
    flat = Statistics.of(plane), Statistics.of(line)
    p, q = flat  # q has variance s along the first axis alone, so tr((Σ_p Σ_q)^½) is (Σ_p[0, 0] s)^½
    both = np.square(p.mean - q.mean).sum() + np.trace(p.cov + q.cov) - 2 * np.sqrt(p.cov[0, 0] * q.cov[0, 0])
    for first, second, expected in ((a, b, both), (b, a, both), (b, b, 0.0)):
        assert_allclose(frechet_distance(first, second), expected, rtol=1e-6, atol=1e-6)
    constant = Statistics.of(np.ones((5, 40)))
    assert_allclose(frechet_distance(constant, a), np.square(1 - a.mean).sum() + np.trace(a.cov))


def test_few_samples_are_said() -> None:
    caution = Statistics.of(features(0, count=12)).caution()
    assert caution is not None
    assert "12 samples give a covariance of 12 features at most rank 11" in caution
    assert Statistics.of(features(0, count=13)).caution() is None


def test_refusals() -> None:
    with pytest.raises(DataError, match="1 samples have no covariance"):
        Statistics.of(np.ones((1, 3)))
    bad = np.ones((4, 3))
    bad[2, 1] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        Statistics.of(bad)
    with pytest.raises(DataError, match="NaN or infinity"):
        Statistics.of(bad * np.inf)
    with pytest.raises(UsageError, match="4 dimensions do not join statistics of 3"):
        StatisticsAccumulator().add_all([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(UsageError, match="12 and 3 dimensions"):
        frechet_distance(Statistics.of(features(0)), Statistics.of(np.eye(3)))
