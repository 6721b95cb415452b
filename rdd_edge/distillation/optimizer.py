"""Adam with warm-up, cosine decay and clipping; the learning rate is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .collectives import sum_gradients
from .config import Training
from .state import optimizer_tensors, restore_optimizer

RESTART_STEPS = 200  # of warm-up after a resume without moments: these average over some hundred steps


def rate_at(training: Training, index: int) -> float:
    """Learning rate of step `index`: linear warm-up, then constant or a cosine to 0."""
    warm = min(1.0, (index + 1) / training.warmup) if training.warmup else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * index / training.steps)) if training.cosine else 1.0
    return training.rate * warm * fall


class Optimizer:
    """Adam over a stage's parameters."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], training: Training, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self.parameters = list(parameters)
        self.training = training
        self.adam = torch.optim.Adam(self.parameters, training.rate, betas, fused=True)
        self.updates = 0  # seen by the moments: the step's index, or fewer if the state was saved without them

    def step(self, loss: Tensor, index: int) -> Tensor:
        """Backward, sum over ranks, clip, update. Returns the gradient's norm before clipping."""
        restart = min(1.0, (self.updates + 1) / RESTART_STEPS) if self.updates < index else 1.0
        for group in self.adam.param_groups:
            group["lr"] = restart * rate_at(self.training, index)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        self.adam.step()
        self.updates += 1
        return norm

    def tensors(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.adam)

    def load(self, tensors: dict[str, Tensor]) -> None:
        restore_optimizer(self.adam, tensors)
        self.updates = next((int(value) for name, value in tensors.items() if name.endswith(".step")), 0)
