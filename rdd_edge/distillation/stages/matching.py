"""The stage that teaches one network another's predictions at the same step count.

It turns a foreign teacher into one that predicts x on our schedule, and a large network into a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...diffusion.checkpoint import save_checkpoint
from ...diffusion.network import Denoiser, denoiser
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

__all__ = ["MatchStage"]


class MatchStage:
    """L_PD (Eq. 2) with the teacher's own x̂ as the target. Runs without dropout and without EMA.

    teacher: x̂ of z_t for images of these labels; no gradient passes through it.  grid: t is drawn from
    {1/grid … 1}; None: from (0, 1].
    """

    def __init__(
        self, name: str, teacher: Callable[[Tensor | None], Denoiser], student: nn.Module, training: Training,
        data: Batches, seed: int, conditional: bool, *, grid: int | None, role: Literal["teacher", "student"],
        method: str,
    ) -> None:  # fmt: skip
        self.name, self.steps, self.training, self.data = name, training.steps, training, data
        self.teacher, self.seed, self.conditional = teacher, seed, conditional
        self.grid, self.role, self.method = grid, role, method
        self.student = data.context.prepare(student).eval()  # eval switches dropout off and nothing else
        self.optimizer = Optimizer(self.student.parameters(), training)

    def step(self, index: int, log: bool) -> dict[str, Tensor | float | None] | None:
        draws = generator(self.seed, f"match/{self.name}", index)
        x, noise, label = draw_batch(draws, self.data, self.training, self.conditional)
        context = self.data.context
        t = context.own(self._times(draws))
        z = add_noise(x, noise, t)
        with torch.no_grad():
            target = self.teacher(label)(z, t)
        guess = denoiser(self.student, label, context.autocast)(z, t)
        loss = pd_loss(guess, target, snr_weight(t)) * current().fraction(self.training.batch)
        norm = self.optimizer.step(loss, index)
        return {"loss": all_sum(loss.detach()), "grad_norm": norm} if log else None

    def _times(self, draws: torch.Generator) -> Tensor:
        n = self.training.batch
        if self.grid is None:
            return 1.0 - torch.rand(n, generator=draws)  # (0, 1]
        return torch.randint(1, self.grid + 1, (n,), generator=draws) / self.grid

    def network(self) -> nn.Module:
        return self.student

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        return sample(denoiser(frozen_copy(self.student), label), z, min(self.grid or MOST_STEPS, MOST_STEPS))

    def state(self) -> dict[str, Tensor]:
        return modules_tensors({"student": self.student}) | prefixed("optimizer", self.optimizer.tensors())

    def load(self, state: dict[str, Tensor]) -> None:
        self.student.load_state_dict(select("student", state))
        self.optimizer.load(select("optimizer", state))

    def finish(self, path: Path) -> None:
        steps = self.grid if self.role == "student" else None
        save_checkpoint(path, self.student, role=self.role, method=self.method, sampling_steps=steps)
