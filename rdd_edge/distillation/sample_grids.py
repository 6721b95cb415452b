"""Grids of samples while a stage trains: always from the same portable noise, so that nothing of the training is drawn.

RUN/logs/<stage>-<step>.png, and TensorBoard's `samples`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..portable.noise import labels, normals, to_uint8
from .stages.base import DiffusionStage

__all__ = ["COUNT", "GRIDS", "due", "pictures"]

GRIDS = 4  # a stage
COUNT = 16  # images of one
SEED = 0


def due(index: int, steps: int) -> bool:
    """Whether a grid follows step `index`: after each quarter of the stage, whenever it was stopped or saved."""
    return any(index + 1 == -(-quarter * steps // GRIDS) for quarter in range(1, GRIDS + 1))


def pictures(stage: DiffusionStage, device: torch.device) -> NDArray[np.uint8]:
    """Images (COUNT, H, W, 1 or 3) of the stage's network; of other channel counts the first."""
    config: Any = stage.network.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    z = torch.from_numpy(normals(SEED, range(COUNT), (config.in_channels, height, width)))
    classes = config.num_class_embeds
    label = None if classes is None else torch.from_numpy(labels(range(COUNT), classes)).to(device)
    with torch.no_grad():
        x = stage.samples(z.to(device, torch.get_default_dtype()), label)
    images = to_uint8(x.float().cpu().numpy())
    return images if images.shape[3] in (1, 3) else images[..., :1]
