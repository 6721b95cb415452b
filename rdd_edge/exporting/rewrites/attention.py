"""Attention as two matrix products around a softmax, for backends without a fused attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def attention(gm: GraphModule) -> None:
    """Replace each attention without mask, dropout and causality; the export that follows traces the function."""
    for node in gm.graph.nodes:
        if node.target == aten.scaled_dot_product_attention.default and _is_plain(node):
            width = node.args[0].meta["val"].shape[-1]
            scale = node.kwargs.get("scale") or width**-0.5
            node.target, node.args, node.kwargs = attention_of_products, (*node.args[:3], scale), {}


def attention_of_products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(q kᵀ · scale) v.  q: (N, heads, L, D).  k, v: (N, heads, S, D).  Returns (N, heads, L, D)."""
    n, heads, length, width = q.shape
    rows, keys, values = (x.reshape(n * heads, -1, width) for x in (q * scale, k, v))
    weights = torch.softmax(torch.bmm(rows, keys.transpose(1, 2)), dim=-1)  # (N·heads, L, S)
    return torch.bmm(weights, values).reshape(n, heads, length, width)


def _is_plain(node: Node) -> bool:
    extra = [*node.args[3:], *(value for key, value in node.kwargs.items() if key != "scale")]
    return all(value is None or value is False or value == 0.0 for value in extra)
