"""Evaluation shared among processes: each takes a contiguous part, and the accumulators are joined in rank order.

A share is (rank, processes). Samples are shared in whole blocks, and networks are given a block at a time: what a
network makes of an image depends in its last digits on the images beside it, and so no number depends on the share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frechet import StatisticsAccumulator
from .inception_score import InceptionScoreAccumulator

__all__ = [
    "ALONE", "BLOCK", "Share", "everywhere", "gather_arrays", "gather_score", "gather_statistics", "shard",
    "shard_blocks",
]  # fmt: skip

Share = tuple[int, int]
ALONE: Share = (0, 1)
BLOCK = 256


def shard(count: int, rank: int, processes: int) -> range:
    """Indices of the samples that process `rank` makes and measures: contiguous, all sizes within one."""
    return range(rank * count // processes, (rank + 1) * count // processes)


def shard_blocks(count: int, share: Share) -> range:
    """Indices of the samples of a share: `shard` of the blocks, so that each but the last of all is whole."""
    blocks = shard(-(-count // BLOCK), *share)
    return range(min(blocks.start * BLOCK, count), min(blocks.stop * BLOCK, count))


def gather_arrays(own: NDArray[Any], share: Share) -> list[NDArray[Any]]:
    """The arrays of all processes of the default group in rank order, on each of them.

    They may differ in their first side, which may be 0, and in no other.
    """
    if share[1] == 1:
        return [own]
    import torch
    import torch.distributed as dist

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(share[1])]
    dist.all_gather(sizes, torch.tensor([len(own)], device=device))
    most = max(int(size) for size in sizes)
    padded = torch.from_numpy(np.concatenate([own, np.zeros((most - len(own), *own.shape[1:]), own.dtype)])).to(device)
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[: int(size)].cpu().numpy() for part, size in zip(parts, sizes, strict=True)]


def gather_statistics(own: StatisticsAccumulator, share: Share) -> StatisticsAccumulator:
    """What all processes have seen, on each of them. One that has seen nothing takes part as well."""
    if share[1] == 1:
        return own
    merged = StatisticsAccumulator()
    for state in gather_arrays(own.state(), share):
        merged.merge(StatisticsAccumulator.of_state(state))
    return merged


def gather_score(own: InceptionScoreAccumulator, share: Share) -> InceptionScoreAccumulator:
    """The same of the sums of an Inception score, told the same count and splits on each."""
    if share[1] == 1:
        return own
    merged = own.empty()
    for state in gather_arrays(own.state(), share):
        merged.merge(own.of_state(state))
    return merged


def everywhere(flag: bool, share: Share) -> bool:
    """Whether it holds on every process."""
    return all(bool(part[0]) for part in gather_arrays(np.array([flag]), share))
