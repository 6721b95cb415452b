"""The method's own sampler: deterministic DDIM on x-predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Denoiser
from .schedule import ddim_step

__all__ = ["sample"]


@torch.no_grad()
def sample(predict: Denoiser, z: Tensor, steps: int) -> Tensor:
    """x from z = z_1 (N, C, H, W) in `steps` DDIM steps at t_i = i/steps; x̂ is clipped to [-1, 1] at each.

    In one step this is θ(z_1, 1), clipped.
    """
    for i in range(steps, 0, -1):
        t, s = (torch.full((len(z),), k / steps, device=z.device) for k in (i, i - 1))
        x = predict(z, t).clamp(-1.0, 1.0)
        z = ddim_step(x, z, t, s)
    return x
