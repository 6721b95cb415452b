"""The plan of a benchmark run: the bundle's own, changed by a plan.json that may have been written by hand.

Only the standard library, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CorruptError, printable

# The smallest and the largest value of each number, as in the schema of plan.json.
RANGES: dict[str, tuple[float, float]] = {
    "schema_version": (1, 1),
    "performance.warmup": (0, 1_000_000),
    "performance.runs": (1, 10_000_000),
    "performance.seconds": (0, 86_400),
    "performance.starts": (1, 100),
    "accuracy.samples": (0, 10_000_000),
    "accuracy.seed": (0, 2**64 - 1),
    "accuracy.floats": (0, 10_000_000),
    "threads": (1, 1024),
}
FRACTIONS = ("performance.seconds",)  # all others are whole numbers


def completed(given: dict[str, Any], default: dict[str, Any], path: Path, section: str = "") -> dict[str, Any]:
    """The plan `given`, read from `path`, with what it lacks taken from `default`.

    Raises CorruptError, which names the key, for an unknown key and for a value that is not a number in its range.
    """
    for name in given:
        if name not in default:
            keys = ", ".join(default)
            raise CorruptError(f"{path} is not a plan: {section}{printable(name, 80)} is unknown; the keys are {keys}")
    return {
        name: _value(given.get(name, fallback), fallback, path, f"{section}{name}")
        for name, fallback in default.items()
    }


def _value(given: Any, default: Any, path: Path, key: str) -> Any:
    if isinstance(default, dict):
        if not isinstance(given, dict):
            raise CorruptError(f"{path} is not a plan: {key} must hold {', '.join(default)}")
        return completed(given, default, path, f"{key}.")
    low, high = RANGES[key]
    kinds = (int, float) if key in FRACTIONS else (int,)
    if isinstance(given, bool) or not isinstance(given, kinds) or not low <= given <= high:
        what = "number" if key in FRACTIONS else "whole number"
        raise CorruptError(f"{path} is not a plan: {key} must be a {what} from {low} to {high}")
    return given
