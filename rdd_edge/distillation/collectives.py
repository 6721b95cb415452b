"""Differentiable sums and gathers over the ranks of a training run.

Each rank's loss is its part of the batch's loss, so the parts add up to it and every gradient is a sum over ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import current, split_evenly

__all__ = ["all_sum", "gather_rows", "sum_gradients"]


def gather_rows(local: Tensor, count: int) -> Tensor:
    """The rows (count, …) of all ranks in the order of the batch; the gradient is summed over ranks."""
    return local if current().size == 1 else cast(Tensor, _Gather.apply(local, count))  # type: ignore[no-untyped-call]


def all_sum(value: Tensor) -> Tensor:
    """The sum over ranks; its gradient is summed as well."""
    return value if current().size == 1 else cast(Tensor, _Sum.apply(value))  # type: ignore[no-untyped-call]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over ranks, in one message."""
    if current().size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


class _Gather(torch.autograd.Function):
    """all_gather of parts whose sizes differ by at most one, each padded to the largest."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, count: int) -> Tensor:
        ctx.count = count
        size = current().size
        sizes = [len(split_evenly(count, rank, size)) for rank in range(size)]
        padded = local.new_zeros(max(sizes), *local.shape[1:])
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        return total[current().rows(ctx.count)], None


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
