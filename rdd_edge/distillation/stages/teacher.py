"""The stage that trains the teacher: x-prediction at continuous times, with EMA."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...diffusion.checkpoint import save_checkpoint
from ...diffusion.network import denoiser
from ...diffusion.samplers import sample
from ...diffusion.schedule import add_noise, snr_weight
from ...distributed import current
from ..batches import Batches
from ..collectives import all_sum
from ..config import Training
from ..losses.functional import pd_loss
from ..noising import draw_batch
from ..optimizer import Optimizer
from ..rng import generator
from ..sample_grids import MOST_STEPS, frozen_copy
from ..state import modules_tensors, prefixed, select

__all__ = ["TeacherStage"]


class TeacherStage:
    """E‖x - θ(z_t, t)‖² weighted by the truncated SNR, t uniform on (0, 1]."""

    def __init__(self, unet: nn.Module, training: Training, data: Batches, seed: int, conditional: bool) -> None:
        self.name, self.steps = "teacher", training.steps
        self.training, self.data, self.seed, self.conditional = training, data, seed, conditional
        self.unet = data.context.prepare(unet).train()
        self.ema = {key: value.clone() for key, value in self.unet.state_dict().items()}
        self._pairs = self._paired()
        self.optimizer = Optimizer(self.unet.parameters(), training)

    def step(self, index: int, log: bool) -> dict[str, Tensor | float | None] | None:
        draws = generator(self.seed, self.name, index)
        x, noise, label = draw_batch(draws, self.data, self.training, self.conditional)
        n, context = self.training.batch, self.data.context
        t = context.own(1.0 - torch.rand(n, generator=draws))  # (0, 1]
        # Dropout alone depends on the number of processes: each has masks of its own.
        masks = generator(self.seed, "teacher/dropout" + (f"/{rank}" if (rank := current().rank) else ""), index)
        with torch.random.fork_rng(devices=[]):  # dropout alone draws from the global generator
            torch.manual_seed(int(masks.initial_seed()))
            prediction = denoiser(self.unet, label, context.autocast)(add_noise(x, noise, t), t)
            loss = pd_loss(prediction, x, snr_weight(t)) * current().fraction(n)
        norm = self.optimizer.step(loss, index)
        self._average(index)
        return {"loss": all_sum(loss.detach()), "grad_norm": norm} if log else None

    @torch.no_grad()
    def _average(self, index: int) -> None:
        """EMA with the early steps weighted as (1 + k)/(10 + k), so that the random start is forgotten."""
        decay = min(self.training.ema, (1 + index) / (10 + index))
        torch._foreach_lerp_(*self._pairs, 1 - decay)

    def _paired(self) -> tuple[list[Tensor], list[Tensor]]:
        """The average's tensors and the network's, in the same order: a U-Net has nothing else, and no counters."""
        values = self.unet.state_dict()
        return [self.ema[name] for name in values], list(values.values())

    def network(self) -> nn.Module:
        return self.unet

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        return sample(denoiser(frozen_copy(self.unet, self.ema), label), z, MOST_STEPS)

    def state(self) -> dict[str, Tensor]:
        return {
            **modules_tensors({"unet": self.unet}),
            **prefixed("ema", self.ema),
            **prefixed("optimizer", self.optimizer.tensors()),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        self.unet.load_state_dict(select("unet", state))
        for name, value in select("ema", state).items():
            self.ema[name].copy_(value)
        self.optimizer.load(select("optimizer", state))

    def finish(self, path: Path) -> None:
        self.unet.load_state_dict(self.ema)
        save_checkpoint(path, self.unet.eval(), role="teacher", method="teacher", sampling_steps=None)
