"""Nearest ×2 followed by a 3×3 convolution, as one transposed convolution.

Each output pixel of the pair sees 2×2 pixels of the small map through a kernel whose taps that fall on the same pixel
are summed. That is a 4×4 transposed convolution of stride 2 and padding 1, with 4/9 of the multiplications.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...graphs.nodes import add_constant, constant, is_plain_3x3

__all__ = ["matches", "transposed_kernel", "upsample"]

aten = torch.ops.aten


def upsample(gm: GraphModule) -> None:
    """Replace each nearest ×2 that only a 3×3 convolution of stride 1 and padding 1 uses."""
    for node in list(gm.graph.nodes):
        if node.target == aten.conv2d.default and matches(gm, node):
            doubled, weight, *bias = node.args[:3]
            kernel = transposed_kernel(constant(gm, weight))
            new = add_constant(gm, f"{weight.target}_x2", kernel, node)
            with gm.graph.inserting_before(node):
                args = (doubled.args[0], new, bias[0] if bias else None, [2, 2], [1, 1])
                result = gm.graph.call_function(aten.conv_transpose2d.input, args)
            result.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(result)
            gm.graph.erase_node(node)


def transposed_kernel(kernel: Tensor) -> Tensor:
    """The kernel (C_in, C_out, 4, 4) of stride 2 that equals nearest ×2 and then `kernel` (C_out, C_in, 3, 3)."""
    sums = kernel.new_zeros(4, 3, dtype=torch.float64)
    for row, taps in enumerate(((2,), (1, 2), (0, 1), (0,))):  # the taps of the 3 that meet at each of the 4
        sums[row, list(taps)] = 1.0
    result = torch.einsum("ya,xb,oiab->ioyx", sums, sums, kernel.double())  # (C_in, C_out, 4, 4)
    return result.to(kernel.dtype)


def matches(gm: GraphModule, conv: Node) -> bool:
    """Whether a convolution is 3×3, of stride 1 and padding 1, and the only user of a nearest ×2."""
    source = conv.args[0]
    if not isinstance(source, Node) or source.target != aten.upsample_nearest2d.vec or len(source.users) != 1:
        return False
    if not is_plain_3x3(gm, conv):
        return False
    small, large = source.args[0].meta["val"].shape, source.meta["val"].shape  # type: ignore[union-attr]
    return bool(large[2] == 2 * small[2] and large[3] == 2 * small[3])
