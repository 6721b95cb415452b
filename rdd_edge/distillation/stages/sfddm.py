"""The stage of single-fold distillation (SFDDM): a student of T′ steps from the teacher itself, without halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ...diffusion.checkpoint import save_checkpoint
from ...diffusion.network import denoiser
from ...diffusion.schedule import add_noise
from ...diffusion.subsequence import own_times, sample_subsequence
from ...distributed import current
from ..batches import Batches
from ..collectives import all_sum
from ..config import Training
from ..noising import draw_batch
from ..optimizer import Optimizer
from ..rng import generator
from ..sample_grids import frozen_copy
from ..state import modules_tensors, prefixed, select

__all__ = ["SfddmStage", "with_hidden"]

Precision = Callable[[], AbstractContextManager[object]]


def with_hidden(
    unet: nn.Module, z: Tensor, t: Tensor, label: Tensor | None, precision: Precision = nullcontext
) -> tuple[Tensor, Tensor]:
    """x̂ (N, C, H, W) and h (N, C′, H, W), the last hidden map: what the output convolution is given."""
    kept: list[Tensor] = []
    last: nn.Module = unet.conv_out  # type: ignore[assignment]
    hook = last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    try:
        x = denoiser(unet, label, precision)(z, t)
    finally:
        hook.remove()
    return x, kept[0]


class SfddmStage:
    """‖x̂_S - x̂_T‖₁ + w ‖h_S - h_T‖₁, means over all values, of the same z at the student's and the teacher's time.

    A student of another width matches h through a 1x1 convolution that is discarded.
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, times: Sequence[float], hidden_weight: float, training: Training,
        data: Batches, seed: int, conditional: bool,
    ) -> None:  # fmt: skip
        self.name, self.steps, self.training, self.data = f"student-{len(times)}", training.steps, training, data
        self.times, self.hidden_weight, self.seed, self.conditional = tuple(times), hidden_weight, seed, conditional
        self.teacher = data.context.prepare(teacher).eval().requires_grad_(False)
        self.student = data.context.prepare(student).eval()  # eval switches dropout off and nothing else
        self.adapter = _adapter(self.student, self.teacher, seed).to(data.device)
        self.optimizer = Optimizer([*self.student.parameters(), *self.adapter.parameters()], training)
        self._noise_times, self._own_times = torch.tensor(self.times), torch.tensor(own_times(len(times)))

    def step(self, index: int, log: bool) -> dict[str, Tensor | float | None] | None:
        draws = generator(self.seed, f"sfddm/{self.name}", index)
        x, noise, label = draw_batch(draws, self.data, self.training, self.conditional)
        at = torch.randint(len(self.times), (self.training.batch,), generator=draws)
        context = self.data.context
        t, own = context.own(self._noise_times[at]), context.own(self._own_times[at])
        z = add_noise(x, noise, t)
        with torch.no_grad():
            target, target_hidden = with_hidden(self.teacher, z, t, label, context.autocast)
        guess, hidden = with_hidden(self.student, z, own, label, context.autocast)
        part = current().fraction(self.training.batch)
        output = (guess - target).abs().mean() * part
        inner = (self.adapter(hidden) - target_hidden).abs().mean() * part
        loss = output + self.hidden_weight * inner
        norm = self.optimizer.step(loss, index)
        if not log:
            return None
        values = {"loss": loss, "output": output, "hidden": inner}
        return {**{name: all_sum(value.detach()) for name, value in values.items()}, "grad_norm": norm}

    def network(self) -> nn.Module:
        return self.student

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        return sample_subsequence(denoiser(frozen_copy(self.student), label), z, self.times)

    def _modules(self) -> dict[str, nn.Module]:
        return {"student": self.student, "adapter": self.adapter}

    def state(self) -> dict[str, Tensor]:
        return modules_tensors(self._modules()) | prefixed("optimizer", self.optimizer.tensors())

    def load(self, state: dict[str, Tensor]) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(select(name, state))
        self.optimizer.load(select("optimizer", state))

    def finish(self, path: Path) -> None:
        save_checkpoint(
            path, self.student, role="student", method="sfddm", sampling_steps=len(self.times), noise_times=self.times
        )


def _adapter(student: nn.Module, teacher: nn.Module, seed: int) -> nn.Module:
    """Identity, or the 1x1 map from the student's hidden channels to the teacher's."""
    narrow, wide = (int(net.conv_out.in_channels) for net in (student, teacher))  # type: ignore[union-attr, arg-type]
    if narrow == wide:
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "sfddm/adapter", 0).initial_seed()))
        return nn.Conv2d(narrow, wide, 1)
