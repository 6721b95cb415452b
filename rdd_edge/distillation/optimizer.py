"""Adam with warm-up, cosine decay and clipping; the learning rate is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .collectives import sum_gradients
from .config import Training
from .state import optimizer_tensors, restore_optimizer


def rate_at(training: Training, index: int) -> float:
    """Learning rate of step `index`: linear warm-up, then constant or a cosine to 0.

    The warm-up is at most a fifth of the steps, of which `--minutes` may leave fewer than a preset has.
    """
    warmup = min(training.warmup, training.steps / 5)
    warm = min(1.0, (index + 1) / warmup) if warmup else 1.0
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

    def step(self, loss: Tensor, index: int) -> Tensor:
        """Backward, sum over ranks, clip, update. Returns the gradient's norm before clipping."""
        for group in self.adam.param_groups:
            group["lr"] = rate_at(self.training, index)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        self.adam.step()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.adam)

    def load(self, tensors: dict[str, Tensor]) -> None:
        restore_optimizer(self.adam, tensors)
