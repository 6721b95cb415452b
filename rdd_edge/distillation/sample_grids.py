"""Grids of samples during training, always from the same portable noise: training itself draws nothing for them.

They are written to RUN/logs/<stage>-<step>.png and to TensorBoard's `samples`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..portable.noise import inputs, to_uint8
from .stages.base import DiffusionStage

GRIDS = 4  # per stage
COUNT = 16  # images per grid
SEED = 0


def is_grid_step(index: int, steps: int) -> bool:
    """Whether a grid follows step `index`: after each quarter of the stage, however often it was interrupted."""
    return any(index + 1 == -(-quarter * steps // GRIDS) for quarter in range(1, GRIDS + 1))


def grid_images(stage: DiffusionStage, device: torch.device) -> NDArray[np.uint8]:
    """Samples (COUNT, H, W, 1 or 3) of the stage's network; other channel counts show only the first channel."""
    config: Any = stage.network.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    z, classes = inputs(SEED, range(COUNT), (config.in_channels, height, width), config.num_class_embeds)
    label = None if classes is None else torch.from_numpy(classes).to(device)
    with torch.no_grad():
        x = stage.samples(torch.from_numpy(z).to(device, torch.get_default_dtype()), label)
    images = to_uint8(x.float().cpu().numpy())
    return images if images.shape[3] in (1, 3) else images[..., :1]
