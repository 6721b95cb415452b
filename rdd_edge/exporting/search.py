"""Mixed precision: as much int8 as a quality budget allows, measured on artifacts that are built and run.

Layers are sorted by their error in int8 per multiplication, the largest first. The search keeps the first k of them in
higher precision and bisects for the smallest k: the artifact with k meets the budget, the one with k - 1 does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.export import ExportedProgram

from ..errors import ThresholdError
from ..graphs.cleanup import graph_of
from ..graphs.layers import layers
from ..targets.base import CalibrationSet
from .budget import Budget
from .sensitivity import layer_errors

MIXED = "mixed"  # name of the precision that this search determines


@dataclass(frozen=True)
class SearchResult:
    """The layers to keep, and the artifacts that were built to find them."""

    keep: tuple[str, ...]
    value: float  # of the budget, with these layers kept
    tried: dict[int, float]  # value of the budget by k, in the order in which the artifacts were built
    error_fractions: tuple[float, ...]  # of each layer kept: its error over the sum of all layers' errors

    def explanation(self, budget: Budget) -> str:
        """Which layers are kept and why, in one line."""
        if not self.keep:
            return f"all layers in int8: {budget.text(self.value)}"
        layers = (f"{name} ({part:.0%})" for name, part in zip(self.keep, self.error_fractions, strict=True))
        fewer = self.tried[len(self.keep) - 1]
        return (
            f"layers kept in higher precision, with their fraction of the int8 error: {', '.join(layers)}; "
            f"{budget.text(self.value)}, or {budget.text(fewer)} with one layer fewer"
        )


def search_keep(
    program: ExportedProgram, calibration: CalibrationSet, budget: Budget, value_of: Callable[[tuple[str, ...]], float]
) -> SearchResult:
    """Measure the error of each layer on calibration noise, then find the fewest to keep: see `least_kept`."""
    macs: dict[str, int] = {}
    for layer in layers(graph_of(program)):
        macs[layer.name] = macs.get(layer.name, 0) + layer.macs
    errors = layer_errors(program, calibration)
    return least_kept(order_layers(errors, macs), errors, budget, value_of)


def order_layers(errors: dict[str, float], macs: dict[str, int]) -> list[str]:
    """Layers by error per multiplication, the largest first; both arguments by the layer's name."""
    return sorted(errors, key=lambda name: (-errors[name] / max(macs[name], 1), name))


def least_kept(
    order: list[str], errors: dict[str, float], budget: Budget, value_of: Callable[[tuple[str, ...]], float]
) -> SearchResult:
    """The fewest layers of `order` to keep so that an artifact meets the budget.

    value_of: builds and runs the artifact that keeps these layers, and returns the budget's value of it.
    Raises ThresholdError, with the best value, where the artifact that keeps them all misses the budget.
    """
    tried: dict[int, float] = {}

    def meets(k: int) -> bool:
        tried[k] = value_of(tuple(order[:k]))
        return budget.met(tried[k])

    low, high = 0, len(order)  # keeping `low` misses the budget, keeping `high` meets it
    if meets(0):
        return SearchResult((), tried[0], tried, ())
    probe = _guess(order, errors, budget.allowed(tried[0]))
    while high - low > 1:
        k = min(max(probe, low + 1), high - 1)
        low, high = (low, k) if meets(k) else (k, high)
        probe = (low + high) // 2
    if high == len(order) and not meets(high):
        raise ThresholdError(
            f"no choice of layers meets the budget of {budget.text(budget.required)}: relax it to the best result, "
            f"{budget.text(budget.best(tried.values()))}"
        )
    total = sum(errors.values())
    fractions = tuple(errors[name] / total for name in order[:high])
    return SearchResult(tuple(order[:high]), tried[high], tried, fractions)


def _guess(order: list[str], errors: dict[str, float], fraction: float) -> int:
    """The number of layers to keep if errors add up and `fraction` of their sum is allowed."""
    left = sum(errors.values())
    allowed = left * fraction
    for k, name in enumerate(order):
        if left <= allowed:
            return k
        left -= errors[name]
    return len(order)
