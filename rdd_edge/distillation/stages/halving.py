"""The stage that halves the sampling steps: student of M steps from a teacher of 2M, by PD, RCFD or RDD."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...diffusion.checkpoint import save_checkpoint
from ...diffusion.network import Denoiser, denoiser
from ...diffusion.samplers import sample
from ...diffusion.schedule import add_noise, alpha_sigma, ddim_step, per_image, snr_weight
from ..batches import Batches
from ..collectives import all_sum, sum_gradients
from ..config import Training
from ..losses.objective import Objective
from ..noising import draw_batch
from ..optimizer import Optimizer
from ..rng import generator
from ..sample_grids import MOST_STEPS, frozen_copy
from ..state import modules_tensors, optimizer_tensors, prefixed, restore_optimizer, select

__all__ = ["HalvingStage", "two_step_target"]


class HalvingStage:
    """One fold. Runs without dropout and without EMA; t is drawn from the student's own grid."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, student_steps: int, method: str, terms: Objective,
        training: Training, data: Batches, seed: int, conditional: bool,
    ) -> None:  # fmt: skip
        self.name, self.steps, self.student_steps, self.method = (
            f"student-{student_steps}",
            training.steps,
            student_steps,
            method,
        )
        self.training, self.terms, self.data = training, terms, data
        self.seed, self.conditional = seed, conditional
        self.teacher = data.context.prepare(teacher).eval().requires_grad_(False)
        self.student = data.context.prepare(student).eval()  # eval switches dropout off and nothing else
        self.optimizer = Optimizer(self.student.parameters(), training)
        # The head's rate is constant and its gradient is not clipped, so it has an Adam of its own.
        head = terms.head
        self.head_adam = torch.optim.Adam(head.parameters(), terms.memory.head_rate or training.rate) if head else None

    def step(self, index: int, log: bool) -> dict[str, Tensor | float | None] | None:
        draws = generator(self.seed, self.name, index)
        x, noise, label = draw_batch(draws, self.data, self.training, self.conditional)
        n = self.training.batch
        t = self.data.context.own(torch.randint(1, self.student_steps + 1, (n,), generator=draws) / self.student_steps)
        z = add_noise(x, noise, t)
        target = two_step_target(denoiser(self.teacher, label, self.data.context.autocast), z, t, self.student_steps)
        student = denoiser(self.student, label, self.data.context.autocast)(z, t)
        terms = self.terms.compute(student, target, snr_weight(t), draws, self.training.batch)
        loss = self.terms.total(terms)
        values = {"loss": all_sum(loss.detach()), **_values(terms, student)} if log else None
        if self.head_adam:
            self.head_adam.zero_grad(set_to_none=True)
        norm = self.optimizer.step(loss, index)
        if self.head_adam and self.terms.head and terms.get("m_p2p") is not None:
            sum_gradients(self.terms.head.parameters())
            self.head_adam.step()
        return None if values is None else {**values, "grad_norm": norm}

    def network(self) -> nn.Module:
        return self.student

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        return sample(denoiser(frozen_copy(self.student), label), z, min(self.student_steps, MOST_STEPS))

    def _modules(self) -> dict[str, nn.Module]:
        return {"student": self.student, **({"head": self.terms.head} if self.terms.head else {})}

    def state(self) -> dict[str, Tensor]:
        tensors = modules_tensors(self._modules()) | prefixed("optimizer", self.optimizer.tensors())
        if self.terms.queue is not None:  # an empty queue is falsy
            tensors |= prefixed("queue", self.terms.queue.state())
        if self.head_adam:
            tensors |= prefixed("head_adam", optimizer_tensors(self.head_adam))
        return tensors

    def load(self, state: dict[str, Tensor]) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(select(name, state))
        self.optimizer.load(select("optimizer", state))
        if self.terms.queue is not None:  # an empty queue is falsy
            self.terms.queue.load(select("queue", state))
        if self.head_adam:
            restore_optimizer(self.head_adam, select("head_adam", state))

    def finish(self, path: Path) -> None:
        save_checkpoint(path, self.student, role="student", method=self.method, sampling_steps=self.student_steps)


def _values(terms: dict[str, Tensor | None], student: Tensor) -> dict[str, Tensor | None]:
    """Each term and the norm of its gradient with respect to x̂, the one point all terms share."""
    values: dict[str, Tensor | None] = {}
    for name, value in terms.items():
        values[name] = None if value is None else all_sum(value.detach())
        if value is not None:
            (gradient,) = torch.autograd.grad(value, student, retain_graph=True)
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
