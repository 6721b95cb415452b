"""The search keeps the fewest layers that meet the budget, and says what it could not reach."""

from __future__ import annotations

import pytest

from rdd_edge.errors import ThresholdError
from rdd_edge.exporting.budget import PsnrBudget
from rdd_edge.exporting.search import least_kept, order_layers

ERRORS = {"a": 8.0, "b": 4.0, "c": 2.0, "d": 1.0}
ORDER = list(ERRORS)
PSNR = {0: 40.0, 1: 43.0, 2: 46.0, 3: 49.0, 4: 80.0}  # by the number of layers kept


def psnr_of(keep: tuple[str, ...]) -> float:
    assert keep == tuple(ORDER[: len(keep)])
    return PSNR[len(keep)]


def test_layers_are_ordered_by_what_they_cost_for_what_they_save() -> None:
    assert order_layers({"wide": 3.0, "small": 1.0, "none": 0.0}, {"wide": 100, "small": 10, "none": 1}) == [
        "small", "wide", "none",
    ]  # fmt: skip


@pytest.mark.parametrize(("least_db", "kept"), [(39.0, 0), (40.0, 0), (41.0, 1), (44.0, 2), (49.0, 3), (50.0, 4)])
def test_one_fewer_would_miss_the_budget(least_db: float, kept: int) -> None:
    found = least_kept(ORDER, ERRORS, PsnrBudget(least_db), psnr_of)
    assert found.keep == tuple(ORDER[:kept]) and found.value == PSNR[kept]
    tried = dict(found.tried)
    assert tried[kept] >= least_db and all(tried[k] < least_db for k in range(kept) if k in tried)
    assert kept == 0 or tried[kept - 1] < least_db
    assert len(tried) == len(found.tried) <= 5


def test_it_says_which_layers_and_why() -> None:
    budget = PsnrBudget(44.0)
    assert least_kept(ORDER, ERRORS, budget, psnr_of).explanation(budget) == (
        "layers kept in higher precision, with their fraction of the int8 error: a (53%), b (27%); "
        "46.0 dB, or 43.0 dB with one layer fewer"
    )
    assert "all layers in int8" in least_kept(ORDER, ERRORS, PsnrBudget(30.0), psnr_of).explanation(budget)


def test_a_budget_that_cannot_be_met_names_the_best() -> None:
    with pytest.raises(ThresholdError, match=r"budget of 90\.0 dB: relax it to the best result, 80\.0 dB"):
        least_kept(ORDER, ERRORS, PsnrBudget(90.0), psnr_of)
