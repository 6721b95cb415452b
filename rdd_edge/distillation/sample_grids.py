"""Grids of samples while a stage trains: always from the same portable noise, so that nothing of the training is drawn.

RUN/logs/<stage>-<step>.png, and TensorBoard's `samples`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..portable.noise import labels, normals, to_uint8

__all__ = ["COUNT", "GRIDS", "MOST_STEPS", "Pictured", "due", "frozen_copy", "pictures"]

GRIDS = 4  # a stage
COUNT = 16  # images of one
MOST_STEPS = 16  # of a network that is sampled in more: it costs the time of a few training steps, and shows enough
SEED = 0


@runtime_checkable
class Pictured(Protocol):
    """A stage whose network makes images."""

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        """x (N, C, H, W) of noise z and labels (N,), by the network as it would be kept now."""
        ...

    def network(self) -> nn.Module:
        """The U-Net, in whatever state training leaves it."""
        ...


def due(index: int, steps: int) -> bool:
    """Whether a grid follows step `index`: after each quarter of the stage, whenever it was stopped or saved."""
    return any(index + 1 == -(-quarter * steps // GRIDS) for quarter in range(1, GRIDS + 1))


def frozen_copy(unet: nn.Module, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The network in eval mode with these weights or its own, apart from the one that trains, and not compiled.

    A copy, because to sample from a compiled network would compile it again for another batch.
    """
    copied = copy.deepcopy(unet)
    copied._compiled_call_impl = None
    if weights is not None:
        copied.load_state_dict(weights)
    return copied.eval().requires_grad_(False)


def pictures(stage: Pictured, device: torch.device) -> NDArray[np.uint8]:
    """Images (COUNT, H, W, 1 or 3) of the stage's network; of other channel counts the first."""
    config: Any = stage.network().config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    z = torch.from_numpy(normals(SEED, range(COUNT), (config.in_channels, height, width)))
    classes = config.num_class_embeds
    label = None if classes is None else torch.from_numpy(labels(range(COUNT), classes)).to(device)
    with torch.no_grad():
        x = stage.samples(z.to(device, torch.get_default_dtype()), label)
    images = to_uint8(x.float().cpu().numpy())
    return images if images.shape[3] in (1, 3) else images[..., :1]
