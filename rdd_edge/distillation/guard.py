"""Stops a run that diverges, naming the step and the term, before its state is saved."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from torch import Tensor

from ..errors import TrainingError

EXPLODED = 1000.0  # times the largest of the term's recent values; batches of a healthy run do not come near it
MEMORY = 10  # logged steps


class DivergenceGuard:
    """Checks each logged value of a stage for NaN, infinity, and a rise to a thousand times its recent values."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._recent: dict[str, deque[float]] = {}

    def check(self, index: int, values: Mapping[str, Tensor | float | None], remember: bool) -> dict[str, float | None]:
        """The values as numbers. Raises TrainingError naming the first that is not finite or has exploded.

        remember: whether later values are compared with these.
        """
        numbers = {name: None if value is None else float(value) for name, value in values.items()}
        for name, number in numbers.items():
            if number is None:
                continue
            recent, reason = self._recent.setdefault(name, deque(maxlen=MEMORY)), None
            if not math.isfinite(number):
                reason = f"{name} is {number}"
            elif _may_explode(name, numbers) and len(recent) == MEMORY and number > EXPLODED * max(recent) > 0:
                reason = f"{name} is {number:.3g}, over a thousand times its recent values"
            if reason:
                raise TrainingError(
                    f"stage {self.stage} diverged at step {index}: {reason}; the last good state is kept: lower the "
                    "learning rate"
                )
            if remember:
                recent.append(number)
        return numbers


def _may_explode(name: str, numbers: Mapping[str, float | None]) -> bool:
    """Whether a rise of this value is an error.

    Sums of terms are exempt because they jump when a term joins, and norms of gradients because they may be close to
    zero near the end of a run.
    """
    if name == "loss":
        return not any(key.endswith("_grad_norm") for key in numbers)
    return f"{name}_grad_norm" in numbers
