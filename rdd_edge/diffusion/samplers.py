"""Samplers: the method's own, which is deterministic DDIM on x-predictions, and three of diffusers.

The latter need no training and serve as baselines: DDIM, PNDM and DPM-Solver, on any checkpoint. Their steps are
network evaluations, from pure noise at the last index down; PNDM (PLMS, without its Runge-Kutta start) takes one more
from two steps on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..dependencies import import_diffusers
from ..errors import UsageError
from .network import Denoiser
from .schedule import ddim_step

SAMPLERS = ("ddim", "pndm", "dpm-solver")
MAX_BETA = 0.999  # as squaredcos_cap_v2 caps: PNDM and DPM-Solver divide by α, which is 0 at a zero terminal SNR


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


def training_free(
    name: str, steps: int, unet: nn.Module, betas: Tensor, prediction: str
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The sampler of diffusers with this name: a function of z_1 and labels that returns x.

    betas: (K,), of the schedule that the network was trained on.  prediction: diffusers' prediction_type.
    Raises UsageError for an unknown sampler, and for more steps than the schedule has.
    """
    if name not in SAMPLERS:
        raise UsageError(f"there is no sampler {name!r}: choose from {', '.join(SAMPLERS)}")
    if steps > len(betas):
        raise UsageError(f"--steps {steps} is more than the {len(betas)} steps of the schedule")

    @torch.no_grad()
    def draw(z: Tensor, label: Tensor | None) -> Tensor:
        scheduler = _scheduler(name, betas, prediction)
        scheduler.set_timesteps(steps, device=z.device)
        for timestep in scheduler.timesteps:
            output = unet(z, timestep, class_labels=label).sample
            if name == "pndm":  # it takes ε alone
                output = to_noise(prediction, output, z, scheduler.alphas_cumprod[timestep.cpu()])
            options = {"use_clipped_model_output": True} if name == "ddim" else {}  # Eq. 1 has one x̂ throughout
            z = scheduler.step(output, timestep, z, **options).prev_sample
        return z

    return draw


def _scheduler(name: str, betas: Tensor, prediction: str) -> Any:
    diffusers = import_diffusers()
    common: dict[str, Any] = {"num_train_timesteps": len(betas), "timestep_spacing": "trailing"}
    if name == "ddim":
        return diffusers.DDIMScheduler(trained_betas=betas.tolist(), prediction_type=prediction, **common)
    common["trained_betas"] = betas.clamp(max=MAX_BETA).tolist()
    if name == "pndm":
        return diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True, **common)
    return diffusers.DPMSolverMultistepScheduler(prediction_type=prediction, **common)


def to_noise(prediction: str, output: Tensor, z: Tensor, cumulative: Tensor) -> Tensor:
    """ε̂ from a network's output at ᾱ: ε = (z - α x)/σ = σ z + α v."""
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    if prediction == "epsilon":
        return output
    return (z - alpha * output) / sigma if prediction == "sample" else sigma * z + alpha * output
