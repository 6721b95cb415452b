"""What the stages have in common: noisy images in, one optimizer step, a resumable state, a checkpoint at the end."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ...diffusion.network import Denoiser, denoiser
from ...diffusion.samplers import sample
from ...diffusion.saving import save_checkpoint
from ...diffusion.schedule import add_noise
from ...distributed import current
from ..batches import ImageBatches
from ..collectives import all_sum
from ..compute_context import generator
from ..config import Training
from ..optimizer import Optimizer
from ..state import prefixed, select

MOST_STEPS = 16  # of the samples shown during training: they cost the time of a few training steps, and show enough
Values = dict[str, Tensor | float | None]


class Stage(Protocol):
    """A resumable piece of training that ends in a folder."""

    name: str
    steps: int

    def step(self, index: int, log: bool) -> Values | None:
        """One optimizer step; the values to log if `log` is set. The value "loss" is the one shown as progress."""
        ...

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: dict[str, Tensor]) -> None: ...

    def finish(self, path: Path) -> None:
        """Write the stage's folder."""
        ...


@dataclass(frozen=True)
class Batch:
    """This rank's rows of a training batch."""

    index: int  # of the step
    x: Tensor  # images (n, C, H, W) in [-1, 1]
    z: Tensor  # z_t (n, C, H, W)
    t: Tensor  # (n,) in (0, 1]
    label: Tensor | None  # (n,) of a conditional run
    rng: torch.Generator  # for what else the step draws


class DiffusionStage(ABC):
    """A U-Net trained with Adam on a loss of noisy images: `draw_times` and `loss` are the method.

    networks: what Adam trains, by the name in the state; the first one is the U-Net that `finish` writes.
    """

    role: Literal["teacher", "student"] = "student"
    method: str
    sampling_steps: int | None = None
    noise_times: tuple[float, ...] | None = None
    key_prefix = ""  # before the name, in the key of the random draws

    def __init__(
        self, name: str, networks: dict[str, nn.Module], training: Training, data: ImageBatches, seed: int,
        conditional: bool,
    ) -> None:  # fmt: skip
        self.name, self.steps, self.training, self.data = name, training.steps, training, data
        self.seed, self.conditional, self.context = seed, conditional, data.context
        self.networks, first = nn.ModuleDict(networks), next(iter(networks.values()))
        self.network = self.context.prepare(first).eval()  # switches dropout off: distillation runs without
        self.optimizer = Optimizer(self.networks.parameters(), training)

    @abstractmethod
    def draw_times(self, rng: torch.Generator) -> Tensor:
        """t of the whole batch, (training.batch,) on the CPU."""

    @abstractmethod
    def loss(self, batch: Batch, log: bool) -> tuple[Tensor, Values]:
        """This rank's part of the loss, with gradient, and if `log` is set what is logged beside it."""

    def step(self, index: int, log: bool) -> Values | None:
        loss, values = self.loss(self.draw(index), log)
        total = all_sum(loss.detach()) if log else None
        norm = self.update(loss, index)
        return {"loss": total, **values, "grad_norm": norm} if log else None

    def draw(self, index: int) -> Batch:
        """This rank's rows of the batch of step `index`."""
        rng, size = generator(self.seed, self.key_prefix + self.name, index), self.training.batch
        rows = torch.randint(self.data.count, (size,), generator=rng)
        flip = torch.rand(size, generator=rng) < 0.5
        local = self.data.local(rows)
        x = self.data.images(local)
        if self.training.flip:
            x = torch.where(self.context.local(flip)[:, None, None, None], x.flip(3), x)
        noise = self.context.normals((size, *x.shape[1:]), rng)
        label = self.data.labels(local) if self.conditional else None
        t = self.context.local(self.draw_times(rng))
        return Batch(index, x, add_noise(x, noise, t), t, label, rng)

    def update(self, loss: Tensor, index: int) -> Tensor:
        """Backward and optimizer step; the norm of the gradient."""
        return self.optimizer.step(loss, index)

    def denoiser(self, network: nn.Module, batch: Batch) -> Denoiser:
        """x̂ for the batch's labels, in the run's precision."""
        return denoiser(network, batch.label, self.context.autocast)

    @property
    def fraction(self) -> float:
        """This rank's fraction of a batch."""
        return current().fraction(self.training.batch)

    def weights(self) -> Mapping[str, Tensor]:
        """The weights that `finish` would write now."""
        return self.network.state_dict()

    def samples(self, z: Tensor, label: Tensor | None) -> Tensor:
        """x (N, C, H, W) from noise z and labels (N,), by the network as it would be written now."""
        steps = min(self.sampling_steps or MOST_STEPS, MOST_STEPS)
        return sample(denoiser(frozen_copy(self.network, self.weights()), label), z, steps)

    def state(self) -> dict[str, Tensor]:
        return {**self.networks.state_dict(), **prefixed("optimizer", self.optimizer.tensors())}

    def load(self, state: dict[str, Tensor]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(select(name, state))
        self.optimizer.load(select("optimizer", state))

    def finish(self, path: Path) -> None:
        self.network.load_state_dict(self.weights())
        save_checkpoint(
            path, self.network.eval(), role=self.role, method=self.method, sampling_steps=self.sampling_steps,
            noise_times=self.noise_times, class_names=self.data.class_names if self.conditional else None,
        )  # fmt: skip


def uniform_times(count: int, rng: torch.Generator) -> Tensor:
    """(count,), uniform on (0, 1]."""
    return 1.0 - torch.rand(count, generator=rng)


def grid_times(steps: int, count: int, rng: torch.Generator) -> Tensor:
    """(count,), uniform on {1/steps … 1}."""
    return torch.randint(1, steps + 1, (count,), generator=rng) / steps


def frozen_copy(unet: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network with these weights, in eval mode and not compiled.

    To sample from a compiled network would compile it again for another batch size.
    """
    copied = copy.deepcopy(unet)
    copied._compiled_call_impl = None
    copied.load_state_dict(weights)
    return copied.eval().requires_grad_(False)
