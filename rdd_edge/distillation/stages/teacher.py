"""The stage that trains the teacher: x-prediction at continuous times, with EMA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...diffusion.schedule import snr_weight
from ...distributed import current
from ..batches import ImageBatches
from ..compute_context import generator
from ..config import Training
from ..losses.functional import pd_loss
from ..state import prefixed, select
from .base import Batch, DiffusionStage, Values, uniform_times


class TeacherStage(DiffusionStage):
    """E‖x - θ(z_t, t)‖² weighted by the truncated SNR, t uniform on (0, 1]. The EMA is what is written."""

    role, method = "teacher", "teacher"

    def __init__(self, unet: nn.Module, training: Training, data: ImageBatches, seed: int, conditional: bool) -> None:
        super().__init__("teacher", {"unet": unet}, training, data, seed, conditional)
        self.network.train()
        # A U-Net has no integer buffers, so its whole state is averaged.
        tensors = self.network.state_dict()
        self.ema = {name: value.clone() for name, value in tensors.items()}
        self._averaged = [self.ema[name] for name in tensors], list(tensors.values())

    def draw_times(self, rng: torch.Generator) -> Tensor:
        return uniform_times(self.training.batch, rng)

    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        # Dropout draws from the global generator, and each rank has its own masks: it alone depends on their number.
        key = f"teacher/dropout/{rank}" if (rank := current().rank) else "teacher/dropout"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(self.seed, key, batch.index).initial_seed()))
            x = self.denoiser(self.network, batch)(batch.z, batch.t)
        return pd_loss(x, batch.x, snr_weight(batch.t)) * self.fraction, {}

    def update(self, loss: Tensor, index: int) -> Tensor:
        """Early steps are averaged with (1 + k)/(10 + k), so that the random start is forgotten."""
        norm = super().update(loss, index)
        with torch.no_grad():
            torch._foreach_lerp_(*self._averaged, 1 - min(self.training.ema, (1 + index) / (10 + index)))
        return norm

    def weights(self) -> Mapping[str, Tensor]:
        return self.ema

    def state(self) -> dict[str, Tensor]:
        return super().state() | prefixed("ema", self.ema)

    def load(self, state: dict[str, Tensor]) -> None:
        super().load(state)
        for name, value in select("ema", state).items():
            self.ema[name].copy_(value)
