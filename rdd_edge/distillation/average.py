"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The averaged weights of a network, by name. A U-Net has no integer buffers, so its whole state is averaged."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        """rate: of the past that an update keeps, in [0, 1)."""
        tensors = network.state_dict()
        self.rate = rate
        self.weights = {name: value.clone() for name, value in tensors.items()}
        self._pairs = [self.weights[name] for name in tensors], list(tensors.values())

    @torch.no_grad()
    def update(self, index: int) -> None:
        """Average the weights after step `index`; early steps keep (1 + k)/(10 + k), so that the start is forgotten."""
        torch._foreach_lerp_(*self._pairs, 1 - min(self.rate, (1 + index) / (10 + index)))

    def load(self, weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            self.weights[name].copy_(value)
