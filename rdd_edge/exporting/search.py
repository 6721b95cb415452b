"""Mixed precision: as much int8 as a budget of quality allows, found on artifacts that were built and run.

Layers are ordered by what they cost the images for each multiplication they save, the dearest first. The search keeps
the first k of that order in higher precision, k as small as it can be: of the artifacts it builds, the one with k meets
the budget, and the one with k - 1 does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..errors import ThresholdError
from ..graphs.layers import layers
from ..targets.base import CalibrationSet
from .budget import Budget
from .sensitivity import layer_errors

__all__ = ["MIXED", "Found", "least_kept", "order_layers", "search_keep"]

MIXED = "mixed"  # the precision, in each target that has it, which is found by this search


@dataclass(frozen=True)
class Found:
    """What a search ended with. `tried` is (k, value of the budget) of each artifact it built, in order."""

    keep: tuple[str, ...]
    value: float
    tried: tuple[tuple[int, float], ...]
    error_fractions: tuple[float, ...]  # of each layer kept: its part of the sum of all layers' errors

    def explanation(self, budget: Budget) -> str:
        """Which layers are kept and why: one sentence for a person."""
        if not self.keep:
            return f"int8 throughout has {budget.text(self.value)}, so nothing is kept in higher precision"
        parts = (f"{name} ({share:.0%})" for name, share in zip(self.keep, self.error_fractions, strict=True))
        fewer = dict(self.tried)[len(self.keep) - 1]
        return (
            f"kept in higher precision, with their share of the error of int8: {', '.join(parts)}; "
            f"{budget.text(self.value)}, and {budget.text(fewer)} with one layer fewer"
        )


def search_keep(
    program: ExportedProgram,
    calibration: CalibrationSet,
    budget: Budget,
    value_of: Callable[[tuple[str, ...]], float],
) -> Found:
    """Measure each layer's cost on calibration noise, then find the fewest to keep: see `least_kept`."""
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    macs: dict[str, int] = {}
    for layer in layers(gm):
        macs[layer.name] = macs.get(layer.name, 0) + layer.macs
    errors = layer_errors(program, calibration)
    return least_kept(order_layers(errors, macs), errors, budget, value_of)


def order_layers(errors: dict[str, float], macs: dict[str, int]) -> list[str]:
    """Layers by error per multiplication, the largest first; both arguments by the layer's name."""
    return sorted(errors, key=lambda name: (-errors[name] / max(macs[name], 1), name))


def least_kept(
    order: list[str], errors: dict[str, float], budget: Budget, value_of: Callable[[tuple[str, ...]], float]
) -> Found:
    """The fewest layers of `order` to keep so that an artifact meets the budget.

    value_of: builds and runs the artifact that keeps these layers, and returns the budget's value of it.
    Raises ThresholdError, with the best that can be had, where the artifact that keeps them all misses the budget.
    """
    tried: dict[int, float] = {}

    def meets(k: int) -> bool:
        tried[k] = value_of(tuple(order[:k]))
        return budget.met(tried[k])

    low, high = 0, len(order)  # keeping `low` misses the budget, keeping `high` meets it
    if meets(0):
        return Found((), tried[0], tuple(tried.items()), ())
    probe = _guess(order, errors, budget.allowed(tried[0]))
    while high - low > 1:
        k = min(max(probe, low + 1), high - 1)
        low, high = (low, k) if meets(k) else (k, high)
        probe = (low + high) // 2
    if high == len(order) and not meets(high):
        best = functools.reduce(budget.better, tried.values())
        raise ThresholdError(
            f"no choice of layers holds the budget of {budget.text(budget.asked)}: the best is {budget.text(best)}, "
            "so ask for no more than that"
        )
    total = sum(errors.values())
    shares = tuple(errors[name] / total for name in order[:high])
    return Found(tuple(order[:high]), tried[high], tuple(tried.items()), shares)


def _guess(order: list[str], errors: dict[str, float], share: float) -> int:
    """How many to keep if errors add up and `share` of their sum may stay."""
    left = sum(errors.values())
    allowed = left * share
    for k, name in enumerate(order):
        if left <= allowed:
            return k
        left -= errors[name]
    return len(order)
