"""Calibration noise is the portable noise of its own seed."""

from __future__ import annotations

import numpy as np
import pytest

from rdd_edge.bundle import AccuracyPlan
from rdd_edge.errors import UsageError
from rdd_edge.exporting.parity import CALIBRATION_SEED, PARITY_SEED, calibration_set
from rdd_edge.portable import noise


def test_it_is_portable_noise_with_labels_by_index() -> None:
    found = calibration_set((3, 4, 4), 10, samples=12)
    np.testing.assert_array_equal(found.z, noise.normals(CALIBRATION_SEED, range(12), (3, 4, 4)))
    assert found.label is not None and list(found.label) == [*range(10), 0, 1]
    assert calibration_set((3, 4, 4), None, samples=2).label is None


def test_no_bench_sees_the_calibration_noise_by_default() -> None:
    assert len({AccuracyPlan().seed, CALIBRATION_SEED, PARITY_SEED}) == 3


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one sample, not 0"):
        calibration_set((1, 8, 8), None, samples=0)
