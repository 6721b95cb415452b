"""The stage that trains the teacher: x-prediction at continuous times, with EMA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...diffusion.schedule import snr_weight
from ...distributed import current
from ..average import Average
from ..batches import ImageBatches
from ..compute_context import generator
from ..config import Training
from ..losses.functional import pd_loss
from ..state import prefixed, select
from .base import Batch, DiffusionStage, Values, uniform_times


class TeacherStage(DiffusionStage):
    """E‖x - θ(z_t, t)‖² weighted by the truncated and capped SNR, t uniform on (0, 1]. The EMA is what is written."""

    role, method = "teacher", "teacher"

    def __init__(
        self, unet: nn.Module, training: Training, most_weight: float, data: ImageBatches, seed: int, conditional: bool
    ) -> None:
        super().__init__("teacher", {"unet": unet}, training, data, seed, conditional)
        self.network.train()
        self.most_weight = most_weight
        self.average = Average(self.network, training.ema)

    def draw_times(self, rng: torch.Generator) -> Tensor:
        return uniform_times(self.training.batch, rng)

    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        # Dropout draws from the global generator, and each rank has its own masks: it alone depends on their number.
        key = f"teacher/dropout/{rank}" if (rank := current().rank) else "teacher/dropout"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(self.seed, key, batch.index).initial_seed()))
            x = self.denoiser(self.network, batch)(batch.z, batch.t)
        return pd_loss(x, batch.x, snr_weight(batch.t, self.most_weight)) * self.fraction, {}

    def update(self, loss: Tensor, index: int) -> Tensor:
        norm = super().update(loss, index)
        self.average.update(index)
        return norm

    def weights(self) -> Mapping[str, Tensor]:
        return self.average.weights

    def state(self) -> dict[str, Tensor]:
        return super().state() | prefixed("ema", self.average.weights)

    def load(self, state: dict[str, Tensor]) -> None:
        super().load(state)
        self.average.load(select("ema", state))
