"""Batch normalisation over the batch of all ranks, so that a classifier trains as it would on one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..distributed import current
from .collectives import all_sum

__all__ = ["synchronize_batch_norm"]


class _GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of the whole batch; torch's own SyncBatchNorm runs on CUDA only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        full = x if x.dtype == torch.float64 else x.float()
        sums = torch.cat([full.sum((0, 2, 3)), full.new_full((1,), x.numel() / x.shape[1])])
        total = all_sum(sums)
        count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
        centred = full - mean.view(1, -1, 1, 1)
        variance = all_sum(centred.square().sum((0, 2, 3))) / count
        self._update_running(mean.detach(), variance.detach(), count)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


def synchronize_batch_norm(network: nn.Module) -> None:
    """Give every BatchNorm2d of a network the statistics of all ranks, in place. Its state keeps its names."""
    if current().size == 1:
        return
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = _GlobalBatchNorm
