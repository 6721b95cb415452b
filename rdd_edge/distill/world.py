"""The processes of a run under `torchrun`: who writes, who holds which rows, and sums and gathers that carry gradient.

Each process's loss is its part of the batch's loss, so the parts add up to it; every gradient is a sum over processes.
Without `torchrun` the world is one process and nothing here communicates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import UsageError
from ..metrics.sharded import shard

__all__ = ["World", "joined"]

PATIENCE = timedelta(hours=1)  # rank 0 may be writing a large state while the others wait


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.size

    def rows(self, count: int) -> slice:
        """The rows of a batch of `count` that are this process's."""
        own = shard(count, self.rank, self.size)
        return slice(own.start, own.stop)

    def part(self, count: int) -> float:
        """The part of a batch of `count` that is this process's: its mean loss times this is its part of the mean."""
        own = self.rows(count)
        return float(own.stop - own.start) / count

    def require(self, what: str, batch: int) -> None:
        """Raises UsageError where a batch leaves a process without rows."""
        if batch < self.size:
            raise UsageError(f"{what} is {batch} and there are {self.size} processes: each needs at least one image")

    def gather(self, own: Tensor, count: int) -> Tensor:
        """All processes' rows (count, …) in the order of the batch from each one's own; the gradient is summed back."""
        return own if self.size == 1 else cast(Tensor, _Gather.apply(own, self, count))  # type: ignore[no-untyped-call]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes; so is its gradient."""
        return value if self.size == 1 else cast(Tensor, _Sum.apply(value))  # type: ignore[no-untyped-call]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def agree(self, flag: bool, device: torch.device) -> bool:
        """Rank 0's answer, on every process."""
        if self.size == 1:
            return flag
        answer = torch.tensor([int(flag)], device=device)
        dist.broadcast(answer, 0)
        return bool(answer.item())

    @contextmanager
    def first(self) -> Iterator[None]:
        """A block that rank 0 runs before all others, so that they find in the cache what it has put there."""
        if not self.writes:
            self.wait()
        yield
        if self.writes:
            self.wait()

    def wait(self) -> None:
        """Until every process is here: what rank 0 wrote before is then there for all."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """all_gather of parts whose sizes differ by one at most, padded to the largest."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, world: World, count: int) -> Tensor:
        ctx.world, ctx.count = world, count
        sizes = [len(shard(count, rank, world.size)) for rank in range(world.size)]
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.world.rows(ctx.count)], None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        return total


@contextmanager
def joined(device: str | None) -> Iterator[tuple[World, torch.device]]:
    """The world that `torchrun` has described in the environment, joined for the block, and this process's device.

    device: "cpu", "cuda", or None: CUDA where there is one. Of several GPUs each process takes its own.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(), chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    already = dist.is_initialized()
    if not already:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size()), chosen
    finally:
        if not already:
            dist.destroy_process_group()
