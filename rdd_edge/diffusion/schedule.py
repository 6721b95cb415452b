"""The variance-preserving cosine schedule in continuous time, and one DDIM step on it.

z_t = α_t x + σ_t ε with α² + σ² = 1, t in [0, 1]. Everything here is float32 or float64, never half precision.
Times are tensors of shape (N,); `per_image` makes their coefficients broadcast over (N, C, H, W).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

TRAIN_TIMESTEPS = 1000  # diffusers' discrete indices: index k is t = (k + 1) / 1000
MOST_WEIGHT = math.exp(10)  # of a teacher, which draws t near 0, where α²/σ² is unbounded


def alpha_sigma(t: Tensor) -> tuple[Tensor, Tensor]:
    """α_t = cos(πt/2), σ_t = sin(πt/2), exact at both ends: α_1 = 0 and σ_0 = 0.

    t: any shape, in [0, 1].  Computed in float64, returned in the dtype of t.
    """
    angle = t.double() * (math.pi / 2)
    alpha = torch.where(t == 1, 0.0, torch.cos(angle))
    return alpha.to(t.dtype), torch.sin(angle).to(t.dtype)


def log_snr(t: Tensor) -> Tensor:
    """ln(α²/σ²), +inf at t = 0 and -inf at t = 1."""
    alpha, sigma = alpha_sigma(t.double())
    return (2 * (alpha.log() - sigma.log())).to(t.dtype)


def snr_weight(t: Tensor, most: float = math.inf) -> Tensor:
    """ω_t = max(α²/σ², 1), the truncated SNR (below Eq. 2), capped at `most`.

    A student's t lies on its grid and needs no cap; the public code caps a teacher's weight at e^10. With most = 5 it
    is the weight of min-SNR-γ (Hang et al. 2023, section 3.4) for a network that predicts x, but at least 1.
    """
    return log_snr(t).clamp(0.0, math.log(most)).exp()


def network_time(t: Tensor) -> Tensor:
    """The network's timestep input, 1000 t - 1: diffusers' own index under trailing spacing."""
    return TRAIN_TIMESTEPS * t - 1


def per_image(coefficient: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1)."""
    return coefficient.view(-1, 1, 1, 1)


def add_noise(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """z_t = α_t x + σ_t ε.  x, noise: (N, C, H, W).  t: (N,)."""
    alpha, sigma = alpha_sigma(t)
    return per_image(alpha) * x + per_image(sigma) * noise


def ddim_step(x: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """z_s = α_s x̂ + σ_s (z_t - α_t x̂)/σ_t, Eq. 1.

    x: the prediction x̂ (N, C, H, W).  z: z_t (N, C, H, W).  t, s: (N,), 0 <= s < t <= 1.
    Where s = 0 the result is x̂ itself, since σ_0 = 0.
    """
    alpha_t, sigma_t = (per_image(c) for c in alpha_sigma(t))
    alpha_s, sigma_s = (per_image(c) for c in alpha_sigma(s))
    return alpha_s * x + sigma_s * (z - alpha_t * x) / sigma_t


def scheduler_config(times: Tensor | None = None) -> dict[str, Any]:
    """diffusers' DDIMScheduler with this schedule: index k has ᾱ = cos²(πt/2), at t = 1 exactly 0.

    times: t of each index (1000,) float64, increasing; None: (k + 1)/1000.
    """
    t = torch.arange(1, TRAIN_TIMESTEPS + 1, dtype=torch.float64) / TRAIN_TIMESTEPS if times is None else times
    cumulative = alpha_sigma(t)[0] ** 2
    before = torch.cat([torch.ones(1, dtype=torch.float64), cumulative[:-1]])
    betas = torch.where(before > 0, 1 - cumulative / before, 0.0)  # once ᾱ is 0 it stays there
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": TRAIN_TIMESTEPS,
        "trained_betas": betas.tolist(),
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "clip_sample": True,
        "clip_sample_range": 1.0,
    }
