"""What the tests of devices share: waiting, an action in the middle of a run, and what the harnesses' fakes compute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tiny import Recorder

from rdd_edge.portable import noise


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    for _ in range(round(10 * seconds)):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"the condition did not become true within {seconds:g} s")


class WhileTimed(Recorder):
    """Does something once, when the first timed run is reported."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action: Callable[[], None] | None = action

    def advance(self, done: int, loss: float | None = None) -> None:
        super().advance(done, loss)
        if self.stage == "time" and done and self.action is not None:
            action, self.action = self.action, None
            action()


def tanh(indices: range, shape: tuple[int, ...], seed: int, classes: int | None) -> Any:
    """What the fake runtimes in Kotlin and Swift compute, by NumPy and in float64 as there: (N, C, H, W) float32."""
    x = np.tanh(noise.normals(seed, indices, shape).astype(np.float64)).astype(np.float32)
    if classes is None:
        return x
    return x * (noise.labels(indices, classes) / 10.0).astype(np.float32)[:, None, None, None]
