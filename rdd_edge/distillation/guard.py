"""A run that diverges is stopped with the step and the term that did it, before its state is kept."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from torch import Tensor

from ..errors import TrainingError

__all__ = ["Guard"]

EXPLODED = 1000.0  # times the largest of the term's last values; a batch of a healthy run does not come near it
MEMORY = 10  # logged steps


class Guard:
    """Watches each value of a stage for NaN, infinity, and a rise to a thousand times what it last was."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._past: dict[str, deque[float]] = {}

    def check(self, index: int, values: Mapping[str, Tensor | float | None], remember: bool) -> dict[str, float | None]:
        """The values as numbers. Raises TrainingError naming the first that is not finite or has exploded.

        remember: whether later values are held against these. "loss" is watched for being finite alone: it jumps when
        a term joins it. A gradient's norm is, too: near the end of a run it may have been close to zero.
        """
        numbers = {name: None if value is None else float(value) for name, value in values.items()}
        for name, number in numbers.items():
            if number is None:
                continue
            past = self._past.setdefault(name, deque(maxlen=MEMORY))
            if not math.isfinite(number):
                raise self._error(index, f"{name} is {number}")
            if self._watched(name, numbers) and len(past) == MEMORY and number > EXPLODED * max(past) > 0:
                raise self._error(index, f"{name} is {number:.3g}, over a thousand times what it was")
            if remember:
                past.append(number)
        return numbers

    def _watched(self, name: str, numbers: Mapping[str, float | None]) -> bool:
        terms = f"{name}_grad_norm" in numbers
        alone = name == "loss" and not any(key.endswith("_grad_norm") for key in numbers)
        return terms or alone

    def _error(self, index: int, what: str) -> TrainingError:
        return TrainingError(
            f"stage {self.stage} diverged at step {index}: {what}; the last good state is kept, try a lower rate"
        )
