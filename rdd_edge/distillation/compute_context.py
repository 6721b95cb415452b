"""Where and how a run computes: device, processes, and the options that only change the speed.

Half precision is confined to the networks' forward passes (`ComputeContext.autocast`); what surrounds them, the
schedule, the targets and the losses, works in float32. Nothing here waits for the device, so the host runs ahead of it.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..distributed import current
from .config import Compute

__all__ = ["ComputeContext"]

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class ComputeContext:
    """The device of this process and the run's `Compute`; options left open are on where the device is CUDA."""

    device: torch.device
    compute: Compute = field(default_factory=Compute)

    def _on(self, option: bool | None) -> bool:
        return self.device.type == "cuda" if option is None else option

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for the products inside the block where `compute.bf16` says so; it needs no loss scaling."""
        if not self._on(self.compute.bf16):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def prepare(self, network: Network) -> Network:
        """A network moved here, its memory order and compilation as told. Its state keeps its names."""
        order = torch.channels_last if self._on(self.compute.channels_last) else torch.contiguous_format
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # a stage has one size of batch: the fastest kernel is found once
        network = network.to(self.device).to(memory_format=order)  # type: ignore[call-overload]
        if self._on(self.compute.compile):
            # diffusers asks for torch's version through a cache, which is no concern of the person at the terminal.
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
            network.compile(dynamic=False)  # sizes known in advance run faster
        return network

    def upload(self, tensor: Tensor) -> Tensor:
        """A tensor of the host on the device. From pinned memory, because any other copy waits for the device."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def normals(self, shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
        """This process's rows of a batch's standard normals, drawn where `compute.device_noise` says.

        shape: (N, …) of the whole batch, which every process draws, so that the values do not depend on their number.
        """
        if not self.compute.device_noise:
            return self.own(torch.randn(shape, generator=draws))
        seed = int(torch.randint(2**62, (), generator=draws))
        there = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=there, device=self.device)[current().rows(shape[0])]

    def own(self, whole: Tensor) -> Tensor:
        """This process's rows of something drawn for the whole batch, on the device."""
        return self.upload(whole[current().rows(len(whole))])
