"""The diffusers U-Net as θ(z_t, t) in continuous time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..dependencies import import_diffusers
from ..errors import UsageError
from .schedule import network_time

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x̂ = θ(z_t, t): z (N, C, H, W), t (N,) in [0, 1]."""


def build_unet(arguments: Mapping[str, Any], seed: int) -> nn.Module:
    """A UNet2DModel with random weights from `seed`."""
    diffusers = import_diffusers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: nn.Module = diffusers.UNet2DModel(**arguments)
    return unet


def denoiser(
    unet: nn.Module,
    label: Tensor | None = None,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Denoiser:
    """x̂ = θ(z_t, t) of an x-predicting network, for images of these class labels (N,), in z's own type.

    precision: context of the forward pass alone, such as an autocast.
    """

    def predict(z: Tensor, t: Tensor) -> Tensor:
        time = network_time(t)
        with precision():
            x: Tensor = unet(z, time, class_labels=label).sample
        return x.to(z.dtype)

    return predict


def one_step(model: nn.Module, z: Tensor, label: Tensor | None = None) -> Tensor:
    """x of a one-step student, θ(z_1, 1) clipped to [-1, 1]: the function that every artifact computes.

    z: (N, C, H, W) float32.  label: (N,) int64 for a conditional model.  The timestep is 1000 t - 1 = 999.
    """
    if (label is None) != (getattr(model, "class_embedding", None) is None):
        raise UsageError("a class-conditional model needs a label for each image, and other models take none")
    x: Tensor = model(z, 999, class_labels=label).sample if label is not None else model(z, 999).sample
    return x.clamp(-1.0, 1.0)
