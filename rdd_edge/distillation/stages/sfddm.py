"""The stage of single-fold distillation (SFDDM): a student of T′ steps from the teacher itself, without halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from ...diffusion.network import denoiser
from ...diffusion.subsequence import own_times, sample_subsequence
from ..batches import ImageBatches
from ..collectives import all_sum
from ..compute_context import generator
from ..config import Training
from .base import Batch, DiffusionStage, Values, frozen_copy

Precision = Callable[[], AbstractContextManager[object]]


def with_hidden(
    unet: nn.Module, z: Tensor, t: Tensor, label: Tensor | None, precision: Precision = nullcontext
) -> tuple[Tensor, Tensor]:
    """x̂ (N, C, H, W) and h (N, C′, H, W), the last hidden map: the input of the output convolution.

    unet: a network that `expose_hidden` has changed.
    """
    both = denoiser(unet, label, precision)(z, t)
    channels = z.shape[1]
    return both[:, :channels], both[:, channels:]


class _ConvWithInput(nn.Conv2d):
    """A convolution that gives its input after its output: (N, C + C′, H, W)."""

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([super().forward(hidden), hidden], dim=1)


def expose_hidden(unet: nn.Module) -> nn.Module:
    """Let a UNet2DModel give h after x̂, in place. Its state keeps its names.

    A forward hook would not do: torch.compile does not notice a hook that comes after it.
    """
    cast(nn.Module, unet.conv_out).__class__ = _ConvWithInput
    return unet


class SfddmStage(DiffusionStage):
    """‖x̂_S - x̂_T‖₁ + w ‖h_S - h_T‖₁, means over all values, of the same z at the student's and the teacher's time.

    A student of another width matches h through a 1x1 convolution that is discarded.
    """

    method, key_prefix = "sfddm", "sfddm/"
    noise_times: tuple[float, ...]

    def __init__(
        self, teacher: nn.Module, student: nn.Module, times: Sequence[float], hidden_weight: float, training: Training,
        data: ImageBatches, seed: int, conditional: bool,
    ) -> None:  # fmt: skip
        networks = {"student": expose_hidden(student), "adapter": _adapter(student, teacher, seed).to(data.device)}
        super().__init__(f"student-{len(times)}", networks, training, data, seed, conditional)
        self.noise_times, self.sampling_steps, self.hidden_weight = tuple(times), len(times), hidden_weight
        self.teacher = self.context.prepare(expose_hidden(teacher)).eval().requires_grad_(False)
        self._grid = torch.tensor(self.noise_times)  # increasing
        self._teacher_times = self._grid.to(data.device)
        self._student_times = torch.tensor(own_times(len(times))).to(data.device)

    def draw_times(self, rng: torch.Generator) -> Tensor:
        return self._grid[torch.randint(len(self._grid), (self.training.batch,), generator=rng)]

    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        z, t, label = batch.z, batch.t, batch.label
        student_t = self._student_times[torch.searchsorted(self._teacher_times, t)]  # t is one of the teacher's
        with torch.no_grad():
            target, target_hidden = with_hidden(self.teacher, z, t, label, self.context.autocast)
        x, hidden = with_hidden(self.network, z, student_t, label, self.context.autocast)
        output = (x - target).abs().mean() * self.fraction
        inner = (self.networks["adapter"](hidden) - target_hidden).abs().mean() * self.fraction
        values: Values = {"output": all_sum(output.detach()), "hidden": all_sum(inner.detach())} if log else {}
        return output + self.hidden_weight * inner, values

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        network = frozen_copy(self.network, self.weights())
        cast(nn.Module, network.conv_out).__class__ = nn.Conv2d
        return sample_subsequence(denoiser(network, label), z, self.noise_times)


def _adapter(student: nn.Module, teacher: nn.Module, seed: int) -> nn.Module:
    """Identity, or the 1x1 map from the student's hidden channels to the teacher's."""
    narrow, wide = (int(net.conv_out.in_channels) for net in (student, teacher))  # type: ignore[union-attr, arg-type]
    if narrow == wide:
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "sfddm/adapter", 0).initial_seed()))
        return nn.Conv2d(narrow, wide, 1)
