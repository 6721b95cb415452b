"""The processes of one command under `torchrun`: which of them this is, and its part of the work.

A training batch is divided into rows, an evaluation into whole blocks of images. Networks are given one block at a
time, because what a network computes for an image depends, in its last digits, on the images beside it; so no result
depends on the number of processes. Without `torchrun` there is one process and nothing here communicates.

Collectives that carry a gradient are in distillation.collectives. torch is imported only when processes communicate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError

if TYPE_CHECKING:
    import torch

BLOCK = 256  # images that a network is given at a time
TIMEOUT = timedelta(hours=1)  # rank 0 may be writing a large state while the others wait


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of the command."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """The rows of a batch of `count` that belong to this process."""
        rows = split_evenly(count, self.rank, self.size)
        return slice(rows.start, rows.stop)

    def fraction(self, count: int) -> float:
        """This process's fraction of a batch of `count`: its mean loss times this is its part of the batch's mean."""
        return len(split_evenly(count, self.rank, self.size)) / count

    def blocks(self, count: int) -> range:
        """Indices of this process's images out of `count`, in whole blocks; only the last of all may be shorter."""
        blocks = split_evenly(-(-count // BLOCK), self.rank, self.size)
        return range(min(blocks.start * BLOCK, count), min(blocks.stop * BLOCK, count))

    def require(self, name: str, batch: int) -> None:
        """Raise UsageError if a batch would leave a process without rows."""
        if batch < self.size:
            raise UsageError(f"{name} is {batch} and there are {self.size} processes: each needs at least one image")

    def agree(self, flag: bool, device: torch.device) -> bool:
        """Rank 0's value of `flag`, on every process."""
        if self.size == 1:
            return flag
        import torch
        import torch.distributed as dist

        answer = torch.tensor([int(flag)], device=device)
        dist.broadcast(answer, 0)
        return bool(answer.item())

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that rank 0 runs before all others, so that they find its results in the cache."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def barrier(self) -> None:
        """Wait until every process is here. What rank 0 wrote before is then visible to all."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


_current = DistributedContext()


def current() -> DistributedContext:
    """The context that `joined` has set up; one process outside of it."""
    return _current


@contextmanager
def joined(device: str | None) -> Iterator[torch.device]:
    """Join the processes that `torchrun` has described in the environment, for the block. Yields this one's device.

    device: "cpu", "cuda", or None: CUDA where available. Each process takes a GPU of its own.
    Raises UsageError for another device, or for CUDA where there is none.
    """
    global _current
    import torch
    import torch.distributed as dist

    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device!r} is not known: choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this PyTorch sees no CUDA device; choose cpu")
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    already = dist.is_initialized()
    if not already:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    previous, _current = _current, DistributedContext(dist.get_rank(), dist.get_world_size())
    try:
        yield chosen
    finally:
        _current = previous
        if not already:
            dist.destroy_process_group()


def split_evenly(count: int, rank: int, size: int) -> range:
    """The contiguous indices that fall to `rank`; the sizes of all ranks differ by at most one."""
    return range(rank * count // size, (rank + 1) * count // size)


def gather_arrays(own: NDArray[Any]) -> list[NDArray[Any]]:
    """The arrays of all processes in rank order, on each of them.

    Their first dimensions may differ and may be 0; the others must agree.
    """
    context = current()
    if context.size == 1:
        return [own]
    import torch
    import torch.distributed as dist

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(context.size)]
    dist.all_gather(sizes, torch.tensor([len(own)], device=device))
    longest = max(int(size) for size in sizes)
    filler = np.zeros((longest - len(own), *own.shape[1:]), own.dtype)
    padded = torch.from_numpy(np.concatenate([own, filler])).to(device)
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[: int(size)].cpu().numpy() for part, size in zip(parts, sizes, strict=True)]


def everywhere(flag: bool) -> bool:
    """Whether `flag` is true on every process."""
    return all(bool(part[0]) for part in gather_arrays(np.array([flag])))
