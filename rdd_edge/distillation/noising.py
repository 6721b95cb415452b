"""One step's images, noise and labels, drawn for the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .batches import Batches
from .config import Training

__all__ = ["draw_batch"]


def draw_batch(
    draws: torch.Generator, data: Batches, training: Training, conditional: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """This process's rows of a batch: images (n, C, H, W) in [-1, 1], noise of their shape, labels (n,) or None."""
    rows = torch.randint(data.count, (training.batch,), generator=draws)
    flip = torch.rand(training.batch, generator=draws) < 0.5
    context, own = data.context, data.own(rows)
    x = data.images(own)
    if training.flip:
        x = torch.where(context.own(flip)[:, None, None, None], x.flip(3), x)
    noise = context.normals((training.batch, *x.shape[1:]), draws)
    return x, noise, data.labels(own) if conditional else None
