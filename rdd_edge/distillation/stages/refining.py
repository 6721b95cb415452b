"""The last stage: the one-step student against critics that see real images.

Distillation ends where the teacher is; images of the data set are the only thing that can show a student more. The
generator is the student at t = 1, from noise to image. As in Projected GANs (Sauer et al. 2021), GDD (Zheng & Yang
2024) and DMD2 (Yin et al. 2024): critics on maps of a frozen network, a rate of the critics above the student's, Adam
without a first moment, and averaged weights, which improve while the trained ones swing. And as DMD2 and SiDA (Zhou et
al. 2024) keep their distillation loss, the student is held to its own images before the stage: critics do not notice
what a generator leaves out, and recall would fall.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...diffusion.checkpoint import Card
from ...errors import TrainingError
from ..augmentation import translated
from ..average import Average
from ..batches import ImageBatches
from ..collectives import all_sum
from ..config import Refining
from ..losses.critics import Critics, critic_loss, generator_loss, gradient_penalty
from ..losses.functional import at_least_float32
from ..optimizer import Optimizer
from ..state import prefixed, select
from .base import Batch, DiffusionStage, Values

BETAS = (0.0, 0.99)
WON = 0.01  # hinge loss of a critic that cannot be fooled; 2 is chance
COLLAPSED = 0.1  # of the real images' variance
PATIENCE = 10  # logged steps in a row


class RefiningStage(DiffusionStage):
    """Trains the student on -Σ D(x̂) + w ‖x̂ - x̂₀‖², and the critics D on their hinge loss, on the same noise.

    x̂₀ is the student's image before the stage. Logged: the critics' `loss`, 2 for each where it cannot tell real from
    generated; `generator`, -Σ D(x̂); `anchor`, the mean square of x̂ - x̂₀; `penalty`; and `diversity`, the variance of
    the generated images' features by that of the real ones'.
    """

    sampling_steps = 1

    def __init__(
        self, student: nn.Module, card: Card | None, critics: Critics, refining: Refining, data: ImageBatches,
        seed: int, conditional: bool,
    ) -> None:  # fmt: skip
        training, start = refining.training, copy.deepcopy(student)  # before the student is compiled
        super().__init__("refined", {"student": student}, training, data, seed, conditional)
        self.start = self.context.prepare(start).eval().requires_grad_(False)
        self.refining, self.noise_times = refining, card.noise_times if card else None
        self.method = f"{card.method if card else 'student'}+refined"
        self.optimizer = Optimizer(self.network.parameters(), training, BETAS)
        # Not compiled: the penalty differentiates the critics twice.
        self.critics = self.networks["critics"] = critics.to(self.context.device)
        critic_training = training.model_copy(update={"rate": refining.critic_rate})
        self.critic_optimizer = Optimizer(critics.parameters(), critic_training, BETAS)
        self.average = Average(self.network, training.ema)
        self._won = self._collapsed = 0  # logged steps in a row

    def draw_times(self, rng: torch.Generator) -> Tensor:
        return torch.ones(self.training.batch)

    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        """The student's loss, after a step of the critics."""
        x = self.denoiser(self.network, batch)(batch.z, batch.t)
        with torch.no_grad():
            start = self.denoiser(self.start, batch)(batch.z, batch.t)
        anchor = (x - start).square().mean() * self.fraction
        real, fake = self._seen(batch.x, batch.rng), self._seen(_in_range(x), batch.rng)
        with self.context.autocast():
            maps = self.critics.maps(fake)
        values = self._train_critics(batch, real, [m.detach() for m in maps], log)
        self.critics.requires_grad_(False)
        with self.context.autocast():
            loss = generator_loss(self.critics(maps, batch.label)) * self.fraction
        self.critics.requires_grad_(True)
        if log:
            values |= {"generator": all_sum(loss.detach()), "anchor": all_sum(anchor.detach())}
        return loss + self.refining.anchor * anchor, values

    def step(self, index: int, log: bool) -> Values | None:
        values = super().step(index, log)
        self.average.update(index)
        if values is not None:
            values["loss"] = values.pop("critics")  # the student's own says nothing about progress
            self._guard(index, values)
        return values

    def _train_critics(self, batch: Batch, real: Tensor, fake_maps: list[Tensor], log: bool) -> Values:
        """One step on the maps of generated images; what is logged if `log` is set."""
        refining = self.refining
        penalised = refining.penalty > 0 and batch.index % refining.penalty_every == 0
        real = real.detach().requires_grad_(penalised)
        with self.context.autocast():
            real_maps = self.critics.maps(real)
            logits = self.critics(real_maps, batch.label)
            loss = critic_loss(logits, self.critics(fake_maps, batch.label)) * self.fraction
        penalty = gradient_penalty(logits, real) * self.fraction if penalised else None
        total = loss if penalty is None else loss + refining.penalty * refining.penalty_every * penalty
        self.critic_optimizer.step(total, batch.index)
        if not log:
            return {}
        return {
            "critics": all_sum(loss.detach()),
            "penalty": None if penalty is None else all_sum(penalty.detach()),
            "diversity": _variance(fake_maps[-1]) / _variance(real_maps[-1].detach()),
        }

    def _seen(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """The images as the critics see them: each translated by a few pixels (Zhao et al. 2020)."""
        if not self.refining.shift:
            return x
        return translated(x, self.refining.shift, self.training.batch, rng, self.context)

    def _guard(self, index: int, values: Values) -> None:
        """Raise TrainingError where the critics have won, or the images have become one."""
        loss, diversity = float(values["loss"] or 0.0), float(values["diversity"] or 0.0)
        self._won = self._won + 1 if loss < WON * len(self.critics.critics) else 0
        self._collapsed = self._collapsed + 1 if diversity < COLLAPSED else 0
        if self._won == PATIENCE:
            raise TrainingError(
                f"stage refined failed at step {index}: the critics tell every generated image from every real one, "
                "and the student no longer learns: lower refining.critic_rate or raise refining.penalty"
            )
        if self._collapsed == PATIENCE:
            raise TrainingError(
                f"stage refined failed at step {index}: the generated images have lost their diversity, "
                f"{diversity:.0%} of the real ones' variance: lower refining.training.rate or raise refining.penalty"
            )

    def weights(self) -> Mapping[str, Tensor]:
        return self.average.weights

    def state(self) -> dict[str, Tensor]:
        moments = prefixed("critic_optimizer", self.critic_optimizer.tensors())
        return super().state() | moments | prefixed("ema", self.average.weights)

    def load(self, state: dict[str, Tensor]) -> None:
        super().load(state)
        self.critic_optimizer.load(select("critic_optimizer", state))
        self.average.load(select("ema", state))


def _in_range(x: Tensor) -> Tensor:
    """x clipped to [-1, 1] as the exported network clips it, with the gradient of the identity."""
    return x + (x.clamp(-1.0, 1.0) - x).detach()


def _variance(maps: Tensor) -> Tensor:
    """Variance over the images of the whole batch of the maps' spatial means, the sum over channels."""
    pooled = at_least_float32(maps).mean((2, 3))  # (n, C)
    count, total, square = (
        all_sum(pooled.new_full((), len(pooled))),
        all_sum(pooled.sum(0)),
        all_sum(pooled.square().sum(0)),
    )
    return (square / count - (total / count).square()).sum()
