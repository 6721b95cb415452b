"""One step's images, noise and labels, drawn for the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Training
from .batches import Batches

__all__ = ["draw_batch"]


def draw_batch(
    draws: torch.Generator, data: Batches, training: Training, conditional: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images x (N, C, H, W) in [-1, 1], noise of the same shape, labels (N,) of a conditional model or None."""
    rows = torch.randint(data.count, (training.batch,), generator=draws)
    flip = torch.rand(training.batch, generator=draws) < 0.5
    x = data.images(rows)
    if training.flip:
        x = torch.where(flip.to(x.device)[:, None, None, None], x.flip(3), x)
    noise = torch.randn(x.shape, generator=draws).to(x.device)
    return x, noise, data.labels(rows) if conditional else None
