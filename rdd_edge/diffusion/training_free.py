"""Training-free baselines: DDIM, PNDM and DPM-Solver through diffusers' schedulers, on any checkpoint.

Steps mean network evaluations from pure noise at the last index down, but for PNDM (PLMS, without its Runge-Kutta
start), which takes one more from two steps on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..dependencies import import_diffusers, silenced
from ..errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SAMPLERS", "training_free"]

SAMPLERS = ("ddim", "pndm", "dpm-solver")
MAX_BETA = 0.999  # as squaredcos_cap_v2 caps: PNDM and DPM-Solver divide by α, which is 0 at a zero terminal SNR


def training_free(
    name: str, steps: int, unet: nn.Module, betas: Tensor, prediction: str
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """x of (z, labels).  betas: (K,) of the schedule that the network was trained on.

    Raises UsageError for a sampler that there is not, and for more steps than the schedule has.
    """
    if name not in SAMPLERS:
        raise UsageError(f"there is no sampler {name!r}: choose from {', '.join(SAMPLERS)}")
    if steps > len(betas):
        raise UsageError(f"--steps {steps} is more than the {len(betas)} steps of the schedule")

    def draw(z: Tensor, label: Tensor | None) -> Tensor:
        import torch

        with torch.no_grad(), silenced():
            scheduler = _scheduler(name, betas, prediction)
            scheduler.set_timesteps(steps, device=z.device)
            for timestep in scheduler.timesteps:
                output = unet(z, timestep, class_labels=label).sample
                if name == "pndm":  # it takes ε alone
                    output = to_noise(prediction, output, z, scheduler.alphas_cumprod[timestep.cpu()])
                told = {"use_clipped_model_output": True} if name == "ddim" else {}  # Eq. 1 uses one x̂ throughout
                z = scheduler.step(output, timestep, z, **told).prev_sample
        return z

    return draw


def _scheduler(name: str, betas: Tensor, prediction: str) -> Any:
    diffusers = import_diffusers()
    told: dict[str, Any] = {"num_train_timesteps": len(betas), "timestep_spacing": "trailing"}
    if name == "ddim":
        return diffusers.DDIMScheduler(trained_betas=betas.tolist(), prediction_type=prediction, **told)
    told["trained_betas"] = betas.clamp(max=MAX_BETA).tolist()
    if name == "pndm":
        return diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True, **told)
    return diffusers.DPMSolverMultistepScheduler(prediction_type=prediction, **told)


def to_noise(prediction: str, output: Tensor, z: Tensor, cumulative: Tensor) -> Tensor:
    """ε̂ of a network's output at ᾱ: ε = (z - α x)/σ = σ z + α v."""
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    if prediction == "epsilon":
        return output
    return (z - alpha * output) / sigma if prediction == "sample" else sigma * z + alpha * output
