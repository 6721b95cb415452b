"""Nearest ×2 followed by a 3×3 convolution, with 4/9 of the multiplications.

Each output pixel of the pair depends on 2×2 pixels of the small map, through a kernel in which the taps that fall on
the same pixel are summed. That is a 4×4 transposed convolution of stride 2 and padding 1 (`upsample`), or four 2×2
convolutions of the small map, one for each position of an output pixel (`upsample_subpixel`), which are fast on every
backend. Measured in XNNPACK on (1, 256, 16, 16), fp32, one thread: the pair 5.2 ms, the transposed convolution 8.8 ms,
the four convolutions with their interleaving 2.5 ms. Their results are joined in channels-last order, in which each of
the two concatenations copies whole rows; joined in N, C, H, W it takes 3.1 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from ...graphs.nodes import add_constant, constant, is_plain_3x3

aten = torch.ops.aten
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # (row, column) of an output pixel within its 2 × 2


def upsample(gm: GraphModule) -> None:
    """Replace each nearest ×2 that only a 3×3 convolution of stride 1 and padding 1 uses."""
    for node, x, weight, bias in _pairs(gm):
        kernel = add_constant(gm, f"{weight.target}_x2", transposed_kernel(constant(gm, weight)), node)
        node.target, node.args = aten.conv_transpose2d.input, (x, kernel, bias, [2, 2], [1, 1])


def upsample_subpixel(gm: GraphModule) -> None:
    """As `upsample`, by phases; the export that follows traces the function."""
    for node, x, weight, bias in _pairs(gm):
        kernels = phase_kernels(constant(gm, weight))
        names = (f"{weight.target}_phase_{row}{column}" for row, column in PHASES)
        new = [add_constant(gm, name, kernel, node) for name, kernel in zip(names, kernels, strict=True)]
        node.target, node.args = upsample_by_phases, (x, new, bias)


def transposed_kernel(kernel: Tensor) -> Tensor:
    """The kernel (C_in, C_out, 4, 4) of stride 2 that equals nearest ×2 and then `kernel` (C_out, C_in, 3, 3)."""
    sums = kernel.new_zeros(4, 3, dtype=torch.float64)
    for row, taps in enumerate(((2,), (1, 2), (0, 1), (0,))):  # the taps of the 3 that meet at each of the 4
        sums[row, list(taps)] = 1.0
    result = torch.einsum("ya,xb,oiab->ioyx", sums, sums, kernel.double())  # (C_in, C_out, 4, 4)
    return result.to(kernel.dtype)


def phase_kernels(kernel: Tensor) -> list[Tensor]:
    """For each phase, the kernel (C_out, C_in, 2, 2) that equals nearest ×2 and then `kernel` (C_out, C_in, 3, 3)."""
    full = transposed_kernel(kernel).transpose(0, 1)  # (C_out, C_in, 4, 4)
    taps = ((3, 1), (2, 0))  # of the transposed kernel, those that reach output rows 0 and 1, from the top of the input
    return [full[:, :, taps[row]][:, :, :, taps[column]].contiguous() for row, column in PHASES]


def upsample_by_phases(x: Tensor, kernels: list[Tensor], bias: Tensor | None, together: int = 1) -> Tensor:
    """The four convolutions of x (N, C_in, H, W), interleaved to (N, C_out, 2H, 2W).

    together: number of rows of the result that are placed side by side: (N, C_out, 2H/together, together·2W).
    """
    phases = [
        functional.conv2d(functional.pad(x, (1 - column, column, 1 - row, row)), kernel, bias).permute(0, 2, 3, 1)
        for (row, column), kernel in zip(PHASES, kernels, strict=True)
    ]  # four (N, H, W, C)
    n, h, w, c = phases[0].shape
    even, odd = (torch.cat(phases[i : i + 2], dim=3).reshape(n, h, 2 * w, c) for i in (0, 2))  # whole rows
    return torch.cat([even, odd], dim=2).reshape(n, 2 * h // together, 2 * w * together, c).permute(0, 3, 1, 2)


def _pairs(gm: GraphModule) -> Iterator[tuple[Node, Any, Node, Any]]:
    """Each convolution to replace, the small map, its weight, and its bias or None."""
    for node in list(gm.graph.nodes):
        if node.target != aten.conv2d.default or not is_plain_3x3(gm, node):
            continue
        doubled, weight, *bias = node.args[:3]
        if doubled.target == aten.upsample_nearest2d.vec and len(doubled.users) == 1:
            small, large = doubled.args[0].meta["val"].shape, doubled.meta["val"].shape
            if tuple(large[2:]) == (2 * small[2], 2 * small[3]):
                yield node, doubled.args[0], weight, bias[0] if bias else None
