"""The stage that teaches one network another's predictions at the same step count.

It turns a foreign teacher into one that predicts x on our schedule, and a large network into a smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ...diffusion.network import Denoiser
from ...diffusion.schedule import MOST_WEIGHT, snr_weight
from ..batches import ImageBatches
from ..config import Training
from ..losses.functional import pd_loss
from .base import Batch, DiffusionStage, Values, grid_times, uniform_times


class MatchStage(DiffusionStage):
    """L_PD (Eq. 2) with the teacher's own x̂ as the target.

    teacher: x̂ of z_t for images of these labels; it gets no gradient.  grid: t is drawn from {1/grid … 1}, which the
    checkpoint is then sampled with; None: from (0, 1].
    """

    key_prefix = "match/"

    def __init__(
        self, name: str, teacher: Callable[[Tensor | None], Denoiser], student: nn.Module, training: Training,
        data: ImageBatches, seed: int, conditional: bool, *, grid: int | None, role: Literal["teacher", "student"],
        method: str,
    ) -> None:  # fmt: skip
        super().__init__(name, {"student": student}, training, data, seed, conditional)
        self.teacher, self.sampling_steps, self.role, self.method = teacher, grid, role, method
        self.most_weight = MOST_WEIGHT if grid is None else math.inf

    def draw_times(self, rng: torch.Generator) -> Tensor:
        count, grid = self.training.batch, self.sampling_steps
        return uniform_times(count, rng) if grid is None else grid_times(grid, count, rng)

    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        with torch.no_grad():
            target = self.teacher(batch.label)(batch.z, batch.t)
        x = self.denoiser(self.network, batch)(batch.z, batch.t)
        return pd_loss(x, target, snr_weight(batch.t, self.most_weight)) * self.fraction, {}
