"""Where and how a run computes: the device, the options that only change the speed, and the random draws.

The draws are keyed by (seed, stage, step), so they are the same in a resumed run and for any number of ranks: each step
draws for the global batch, in the order of its sample indices, and a rank keeps its own rows.

Half precision is confined to the networks' forward passes (`ComputeContext.autocast`); the schedule, the targets and
the losses around them are computed in float32. Nothing here waits for the device, so the host can run ahead of it.
"""

from __future__ import annotations

import hashlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.compiler import config as compiler_config

from ..distributed import current
from .config import Compute

Network = TypeVar("Network", bound=nn.Module)


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """A CPU generator for one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _mend_inductor() -> None:
    """Keep Inductor's order of kernels on a CPU; remove it once torch 2.14 is the least.

    Where torch 2.13 fuses loops of C++, it forgets that another kernel writes into a buffer in place, and reads the
    buffer before (pytorch/pytorch, pull request 185873). So the gradient of a nearest upsampling, a scatter into zeros,
    was read as zeros, and every layer before it got a gradient of zero. CUDA's kernels do not come this way.
    """
    from torch._inductor.scheduler import SchedulerNode

    if hasattr(SchedulerNode.recompute_size_and_body, "mended"):
        return
    recompute = SchedulerNode.recompute_size_and_body

    @wraps(recompute)
    def mended(self: SchedulerNode, *args: Any, **options: Any) -> None:
        recompute(self, *args, **options)
        self.set_read_writes(self.read_writes.rename(self.mutation_renames))

    mended.mended = True  # type: ignore[attr-defined]
    SchedulerNode.recompute_size_and_body = mended  # type: ignore[method-assign]
    compiler_config.cache_key_tag += "mended"  # the cache on disk may hold kernels in the wrong order


@dataclass(frozen=True)
class ComputeContext:
    """The device of this rank and the run's `Compute`; options that are None are on if the device is CUDA."""

    device: torch.device
    compute: Compute = field(default_factory=Compute)
    backend: str = "inductor"  # of torch.compile

    def _on(self, option: bool | None) -> bool:
        return self.device.type == "cuda" if option is None else option

    @property
    def compiles(self) -> bool:
        """Whether networks are compiled in their first step: only if asked for, as it has not been tried on CUDA."""
        return bool(self.compute.compile)

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for the matrix products inside the block if `compute.bf16` is on; it needs no loss scaling."""
        if not self._on(self.compute.bf16):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def prepare(self, network: Network) -> Network:
        """The network on this device, in the memory order and compiled as `compute` says. Its state keeps its names."""
        order = torch.channels_last if self._on(self.compute.channels_last) else torch.contiguous_format
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # pays, because all batches of a stage have the same size
        network = network.to(self.device).to(memory_format=order)  # type: ignore[call-overload]
        if self.compiles:
            # A logged step takes the gradient of each loss term, and so goes backwards through a compiled network more
            # than once. A graph that an unlogged step compiled, or that the cache on disk holds, has to allow that: it
            # must not reuse the memory of what it saved.
            functorch_config.donated_buffer = False
            _mend_inductor()
            # diffusers looks up torch's version through a cache; the warning about it is of no use to the user.
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
            network.compile(backend=self.backend, dynamic=False)  # static shapes run faster
        return network

    def upload(self, tensor: Tensor) -> Tensor:
        """A host tensor on the device, through pinned memory: any other copy waits for the device."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def normals(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """This rank's rows of a batch of standard normals; with `compute.device_noise` they are drawn on the device.

        shape: (N, …) of the whole batch. Every rank draws all of it, so the values do not depend on their number.
        """
        if not self.compute.device_noise:
            return self.local(torch.randn(shape, generator=rng))
        seed = int(torch.randint(2**62, (), generator=rng))
        on_device = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=on_device, device=self.device)[current().rows(shape[0])]

    def local(self, whole: Tensor) -> Tensor:
        """This rank's rows of a tensor drawn for the whole batch, on the device."""
        return self.upload(whole[current().rows(len(whole))])
