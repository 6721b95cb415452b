"""Differentiable sums and gathers over the ranks of a training run, and batch normalisation over all of them.

Each rank's loss is its part of the batch's loss, so the parts add up to it and every gradient is a sum over ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import current


def all_sum(value: Tensor) -> Tensor:
    """The sum over ranks; its gradient is summed as well."""
    return value if current().size == 1 else cast(Tensor, _Sum.apply(value))  # type: ignore[no-untyped-call]


def gather_rows(local: Tensor, count: int) -> Tensor:
    """The rows (count, …) of all ranks in the order of the batch; the gradient is summed over ranks."""
    if current().size == 1:
        return local
    whole = local.new_zeros(count, *local.shape[1:])
    whole[current().rows(count)] = local
    return all_sum(whole)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over ranks, in one message."""
    if current().size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return all_sum(upstream)


class _GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of the whole batch; torch's own SyncBatchNorm runs on CUDA only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        full = x if x.dtype == torch.float64 else x.float()
        total = all_sum(torch.cat([full.sum((0, 2, 3)), full.new_full((1,), x.numel() / x.shape[1])]))
        count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
        centred = full - mean.view(1, -1, 1, 1)
        variance = all_sum(centred.square().sum((0, 2, 3))) / count
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def synchronize_batch_norm(network: nn.Module) -> None:
    """Give every BatchNorm2d of a network the statistics of all ranks, in place. Its state keeps its names."""
    if current().size == 1:
        return
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = _GlobalBatchNorm
