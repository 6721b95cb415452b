from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdd_edge.targets.ranges import BINS, LEVELS, histograms, least_squares


def counts_of(values: NDArray[np.float32]) -> tuple[NDArray[np.int64], float]:
    return histograms(lambda: iter([("x", values)]))["x"]


def test_histogram_spans_all_batches() -> None:
    batches = [
        ("a", np.asarray([1.0, -2.0], np.float32)),
        ("b", np.zeros(3, np.float32)),
        ("a", np.asarray([4.0], np.float32)),
    ]
    found = histograms(lambda: iter(batches))
    assert found["a"][1] == 4.0
    assert found["a"][0][[BINS // 4, BINS // 2, BINS - 1]].tolist() == [1, 1, 1]
    assert (found["b"][0].sum(), found["b"][1]) == (3, 0.0)


def test_least_squares_is_the_best_of_its_candidates() -> None:
    values = np.random.default_rng(0).standard_t(3, 100_000).astype(np.float32)

    def error(clip: float) -> float:
        step = clip / LEVELS
        return float(((np.clip(np.round(values / step), -LEVELS, LEVELS) * step - values) ** 2).mean())

    clip = least_squares(*counts_of(values))
    assert clip < np.abs(values).max()
    errors = {fraction: error(float(np.abs(values).max()) * fraction) for fraction in np.linspace(0.2, 1.0, 81)}
    assert error(clip) <= 1.02 * min(errors.values())
