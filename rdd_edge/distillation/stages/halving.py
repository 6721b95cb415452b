"""The stage that halves the sampling steps: student of M steps from a teacher of 2M, by PD, RCFD or RDD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...diffusion.network import Denoiser
from ...diffusion.schedule import alpha_sigma, ddim_step, per_image, snr_weight
from ..batches import ImageBatches
from ..collectives import all_sum, sum_gradients
from ..config import Training
from ..losses.objective import Objective
from ..state import optimizer_tensors, prefixed, restore_optimizer, select
from .base import Batch, DiffusionStage, Values, grid_times


class HalvingStage(DiffusionStage):
    """One fold: the objective's terms between x̂ and the two-step target, t drawn from the student's own grid."""

    sampling_steps: int

    def __init__(
        self, teacher: nn.Module, student: nn.Module, student_steps: int, method: str, objective: Objective,
        training: Training, data: ImageBatches, seed: int, conditional: bool,
    ) -> None:  # fmt: skip
        super().__init__(f"student-{student_steps}", {"student": student}, training, data, seed, conditional)
        self.sampling_steps, self.method, self.objective = student_steps, method, objective
        self.teacher = self.context.prepare(teacher).eval().requires_grad_(False)
        self.head_adam: torch.optim.Adam | None = None
        if (head := objective.head) is not None:
            # Its rate is constant and its gradient is not clipped, so it has an Adam of its own.
            self.head_adam = torch.optim.Adam(head.parameters(), objective.memory.head_rate or training.rate)
            self.networks["head"] = head

    def draw_times(self, rng: torch.Generator) -> Tensor:
        return grid_times(self.sampling_steps, self.training.batch, rng)

    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        z, t = batch.z, batch.t
        target = two_step_target(self.denoiser(self.teacher, batch), z, t, self.sampling_steps)
        x = self.denoiser(self.network, batch)(z, t)
        terms = self.objective.compute(x, target, snr_weight(t), batch.rng, self.training.batch)
        return self.objective.total(terms), _values(terms, x) if log else {}

    def update(self, loss: Tensor, index: int) -> Tensor:
        if self.head_adam is None:
            return super().update(loss, index)
        self.head_adam.zero_grad(set_to_none=True)
        norm = super().update(loss, index)
        parameters = list(self.networks["head"].parameters())
        if parameters[0].grad is not None:  # None while the queue fills: M_P2P is not among the terms
            sum_gradients(parameters)
            self.head_adam.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        tensors = super().state()
        if self.objective.queue is not None:  # an empty queue is falsy
            tensors |= prefixed("queue", self.objective.queue.state())
        if self.head_adam is not None:
            tensors |= prefixed("head_adam", optimizer_tensors(self.head_adam))
        return tensors

    def load(self, state: dict[str, Tensor]) -> None:
        super().load(state)
        if self.objective.queue is not None:
            self.objective.queue.load(select("queue", state))
        if self.head_adam is not None:
            restore_optimizer(self.head_adam, select("head_adam", state))


def _values(terms: dict[str, Tensor | None], x: Tensor) -> Values:
    """Each term and the norm of its gradient with respect to x̂, the one point that all terms share."""
    values: Values = {}
    for name, value in terms.items():
        values[name] = None if value is None else all_sum(value.detach())
        if value is not None:
            (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
            values[f"{name}_grad_norm"] = all_sum(gradient.square().sum()).sqrt()
    return values


@torch.no_grad()
def two_step_target(teacher: Denoiser, z: Tensor, t: Tensor, student_steps: int) -> Tensor:
    """x^T: the x̂ with which one DDIM step t → t″ lands where two teacher steps t → t′ → t″ do.

    With r = σ_t″/σ_t: x^T = (z_t″ - r z_t)/(α_t″ - r α_t), and where t″ = 0, x^T = x̂₂, the teacher's last prediction.
    z: z_t (N, C, H, W).  t: (N,) on the student's grid {1/M … 1}, M = student_steps.  Predictions are not clipped.
    """
    middle = t - 0.5 / student_steps
    # Snapped to the grid, so that the last step ends at 0 exactly and not at a rounding error from it.
    end = torch.round(t * student_steps - 1) / student_steps
    first = teacher(z, t)
    z_middle = ddim_step(first, z, t, middle)
    second = teacher(z_middle, middle)
    z_end = ddim_step(second, z_middle, middle, end)
    (alpha_t, sigma_t), (alpha_end, sigma_end) = alpha_sigma(t), alpha_sigma(end)
    ratio = per_image(sigma_end / sigma_t)
    target = (z_end - ratio * z) / (per_image(alpha_end) - ratio * per_image(alpha_t))
    return torch.where(per_image(end == 0), second, target)
