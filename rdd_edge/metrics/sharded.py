"""Evaluation shared among processes: each takes a contiguous part, and the accumulators are joined in rank order."""

from __future__ import annotations

import numpy as np

from .frechet import StatisticsAccumulator

__all__ = ["gather_statistics", "shard"]


def shard(count: int, rank: int, processes: int) -> range:
    """Indices of the samples that process `rank` makes and measures: contiguous, all sizes within one."""
    return range(rank * count // processes, (rank + 1) * count // processes)


def gather_statistics(own: StatisticsAccumulator) -> StatisticsAccumulator:
    """What all processes of the default group have seen, on each of them; `own` where there is no group.

    A process that has seen nothing takes part as well.
    """
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return own
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    state = own.state()
    length = torch.tensor([len(state)], device=device)
    dist.all_reduce(length, dist.ReduceOp.MAX)
    mine = torch.zeros(int(length), dtype=torch.float64, device=device)
    mine[: len(state)] = torch.from_numpy(state)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    merged = StatisticsAccumulator()
    for part in parts:
        values: np.ndarray = part.cpu().numpy()
        if len(values) and values[0] > 0:
            merged.merge(StatisticsAccumulator.of_state(values))
    return merged
