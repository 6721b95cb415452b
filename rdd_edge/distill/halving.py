"""The stage that halves the sampling steps: student of M steps from a teacher of 2M, by PD, RCFD or RDD."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import save_checkpoint
from ..config import Training
from .batches import Batches
from .draws import generator
from .network import denoiser
from .noisy import draw_batch
from .optimizer import Optimizer
from .pictures import MOST_STEPS, frozen_copy
from .samplers import sample
from .schedule import add_noise, snr_weight
from .state import modules_tensors, optimizer_tensors, prefixed, restore_optimizer, select
from .targets import two_step_target
from .terms import Terms
from .world import World

__all__ = ["HalvingStage"]


class HalvingStage:
    """One fold. Runs without dropout and without EMA; t is drawn from the student's own grid."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, student_steps: int, method: str, terms: Terms,
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
        self.teacher = data.place.prepare(teacher).eval().requires_grad_(False)
        self.student = data.place.prepare(student).eval()  # eval switches dropout off and nothing else
        self.optimizer = Optimizer(self.student.parameters(), training, data.place.world)
        # The head's rate is constant and its gradient is not clipped, so it has an Adam of its own.
        head = terms.head
        self.head_adam = torch.optim.Adam(head.parameters(), terms.memory.head_rate or training.rate) if head else None

    def step(self, index: int, log: bool) -> dict[str, Tensor | float | None] | None:
        draws = generator(self.seed, self.name, index)
        x, noise, label = draw_batch(draws, self.data, self.training, self.conditional)
        n = self.training.batch
        t = self.data.place.own(torch.randint(1, self.student_steps + 1, (n,), generator=draws) / self.student_steps)
        z = add_noise(x, noise, t)
        target = two_step_target(denoiser(self.teacher, label, self.data.place.autocast), z, t, self.student_steps)
        student = denoiser(self.student, label, self.data.place.autocast)(z, t)
        terms = self.terms.compute(student, target, snr_weight(t), draws, self.training.batch)
        loss = self.terms.total(terms)
        world = self.data.place.world
        values = {"loss": world.sum(loss.detach()), **_values(terms, student, world)} if log else None
        if self.head_adam:
            self.head_adam.zero_grad(set_to_none=True)
        norm = self.optimizer.step(loss, index)
        if self.head_adam and self.terms.head and terms.get("m_p2p") is not None:
            world.sum_gradients(self.terms.head.parameters())
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


def _values(terms: dict[str, Tensor | None], student: Tensor, world: World) -> dict[str, Tensor | None]:
    """Each term and the norm of its gradient with respect to x̂, the one point all terms share."""
    values: dict[str, Tensor | None] = {}
    for name, value in terms.items():
        values[name] = None if value is None else world.sum(value.detach())
        if value is not None:
            (gradient,) = torch.autograd.grad(value, student, retain_graph=True)
            values[f"{name}_grad_norm"] = world.sum(gradient.square().sum()).sqrt()
    return values
