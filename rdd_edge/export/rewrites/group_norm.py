"""Group normalisation from means, which every backend has, in place of an operator that some leave to slow code.

The mean over a group is the mean over its channels of each channel's mean over its pixels. Written with means over
pixels of 4-D tensors (global average pooling) and a small view between them, XNNPACK takes all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

__all__ = ["group_norm", "group_norm_of_means"]

aten = torch.ops.aten


def group_norm(gm: GraphModule) -> None:
    """Replace every group normalisation that has a weight and a bias; the export that follows traces the function."""
    for node in gm.graph.nodes:
        if node.target == aten.group_norm.default and len(node.args) > 3 and None not in node.args[2:4]:
            x, groups, weight, bias, *rest = node.args
            node.target, node.args = group_norm_of_means, (x, weight, bias, groups, rest[0] if rest else 1e-5)


def group_norm_of_means(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """The group normalisation of x (N, C, H, W) or (N, C, L); weight, bias (C,)."""
    rows = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)  # (N, G, C/G, L)
    centred = rows - rows.mean((2, 3), keepdim=True)
    variance = (centred * centred).mean((2, 3), keepdim=True)  # (N, G, 1, 1)
    normal = (centred * torch.rsqrt(variance + eps)).reshape(x.shape)
    shape = (1, -1, *[1] * (x.dim() - 2))
    return normal * weight.reshape(shape) + bias.reshape(shape)
