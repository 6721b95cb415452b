"""What the student is asked to predict: two steps of the teacher, folded into one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import alpha_sigma, ddim_step, per_image

__all__ = ["Denoiser", "two_step_target"]

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x̂ = θ(z_t, t): z (N, C, H, W), t (N,) in [0, 1]."""


@torch.no_grad()
def two_step_target(teacher: Denoiser, z: Tensor, t: Tensor, student_steps: int) -> Tensor:
    """x^T: the x̂ with which one DDIM step t → t″ lands where two teacher steps t → t′ → t″ do.

    With r = σ_t″/σ_t: x^T = (z_t″ - r z_t)/(α_t″ - r α_t), and where t″ = 0, x^T = x̂₂, the teacher's last prediction.
    z: z_t (N, C, H, W).  t: (N,) on the student's grid {1/M … 1}, M = student_steps.  Predictions are not clipped.
    """
    middle = t - 0.5 / student_steps
    # Snapped to the grid, so that the last step ends at 0 exactly and not at a rounding error from it.
    end = torch.round(t * student_steps - 1) / student_steps
    first = teacher(z, t)
    z_middle = ddim_step(first, z, t, middle)
    second = teacher(z_middle, middle)
    z_end = ddim_step(second, z_middle, middle, end)
    (alpha_t, sigma_t), (alpha_end, sigma_end) = alpha_sigma(t), alpha_sigma(end)
    ratio = per_image(sigma_end / sigma_t)
    target = (z_end - ratio * z) / (per_image(alpha_end) - ratio * per_image(alpha_t))
    return torch.where(per_image(end == 0), second, target)
