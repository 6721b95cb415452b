"""Random changes of images, drawn for the whole batch and each image by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .auto_augment import auto_augment
from .compute_context import ComputeContext
from .config import ClassifierTraining


def augment(
    x: Tensor, training: ClassifierTraining, rng: torch.Generator, context: ComputeContext, batch: int
) -> Tensor:
    """Random translation (reflected edges), flip, AutoAugment and an erased square, drawn for each image.

    x: (N, C, H, W) in [-1, 1], this rank's rows of a batch of `batch`.
    """
    height, width = x.shape[2:]
    device = x.device
    if training.shift:
        x = translated(x, training.shift, batch, rng, context)
    if training.flip:
        flipped = context.local(torch.rand(batch, generator=rng) < 0.5)
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    if training.auto_augment:
        x = auto_augment(x, rng, context, batch)
    if training.cutout:
        corner = context.local(torch.rand(batch, 2, generator=rng) * torch.tensor([height, width]))
        half = training.cutout / 2
        rows = (torch.arange(height, device=device)[None] + 0.5 - corner[:, :1]).abs() < half  # (N, H)
        columns = (torch.arange(width, device=device)[None] + 0.5 - corner[:, 1:]).abs() < half  # (N, W)
        x = x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
    return x


def translated(x: Tensor, most: int, batch: int, rng: torch.Generator, context: ComputeContext) -> Tensor:
    """Each image moved by up to `most` pixels down and across, its edges reflected; differentiable.

    x: (N, C, H, W), this rank's rows of a batch of `batch`.
    """
    _, channels, height, width = x.shape
    offset = context.local(torch.randint(2 * most + 1, (batch, 2), generator=rng))
    rows = offset[:, 0, None] + torch.arange(height, device=x.device)  # (N, H)
    columns = offset[:, 1, None] + torch.arange(width, device=x.device)  # (N, W)
    pixel = rows[:, :, None] * (width + 2 * most) + columns[:, None, :]  # (N, H, W), in the padded image
    padded = F.pad(x, (most, most, most, most), mode="reflect")
    return padded.flatten(2).gather(2, pixel.flatten(1)[:, None].expand(-1, channels, -1)).view_as(x)
