"""3×3 convolutions by Winograd's minimal filtering along columns: two thirds of the products, a few more additions.

F(2, 3) computes two rows of the output from four rows of the input with four kernels of one row, where the direct
convolution has three kernels for each row (Lavin and Gray, arXiv:1509.09308, in one dimension). The weights grow to 4/3
of their size. F(4, 3) needs half of the products and twice the weights, and was no faster.

Each pair of rows is placed side by side: a map (N, C, H, W) becomes (N, C, H/2, 2W). That is a view, from which a
depthwise convolution with a dilation of W along columns reads the four rows. Operators that treat all pixels alike work
on it unchanged, so a map stays in pairs from one convolution to the next. Measured in XNNPACK on a chain of
convolutions with ReLU, fp32, two threads, in milliseconds each, direct and in pairs: 128 channels of 32×32 1.80 and
1.48; 256 channels of 16×16 1.98 and 1.55; 64 channels of 32×32, a quarter of the work, 0.57 and 0.52, a gain that the
conversions between the two layouts cancel.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import mean

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from ...graphs.layers import layers
from ...graphs.nodes import add_constant, constant, is_constant, is_plain_3x3, options_of
from .group_norm import group_norm_of_means
from .upsample import upsample_by_phases

aten = torch.ops.aten

ROWS = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # coefficients of the four input rows, per product
TAPS = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))  # and of the kernel's three rows

LEAST_PIXELS = 256  # with fewer, reading the weights takes longer than multiplying by them
LEAST_MACS = 100_000_000  # mean over the 3×3 convolutions of maps of one size

ALIKE = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.silu.default, aten.relu.default,
    aten.sigmoid.default, aten.cat.default, aten.conv2d.default, aten.group_norm.default, group_norm_of_means,
}  # fmt: skip

Size = tuple[int, ...]


def winograd(gm: GraphModule) -> None:
    """Replace 3×3 convolutions of stride 1 and padding 1 where that is faster; the export that follows traces them."""
    convolutions = {
        layer.node: layer.macs
        for layer in layers(gm)
        if layer.node.target == aten.conv2d.default and is_plain_3x3(gm, layer.node)
    }
    sizes = _sizes_to_convert(convolutions)
    pairs = _Pairs(gm)
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and _shape(node)[2:] in sizes:
            if node in convolutions:
                pairs.convolve(node)
            elif _treats_pixels_alike(node):
                pairs.repeat(node)
    pairs.replace()


def _sizes_to_convert(convolutions: dict[Node, int]) -> set[Size]:
    """The sizes (H, W) of the maps whose convolutions are large enough.  convolutions: multiplications of each."""
    of_size: defaultdict[Size, list[int]] = defaultdict(list)
    for node, macs in convolutions.items():
        images, _, *size = _shape(node)
        of_size[tuple(size)].append(macs // images)
    return {
        (height, width)
        for (height, width), each in of_size.items()
        if height % 2 == 0 and height * width >= LEAST_PIXELS and mean(each) >= LEAST_MACS
    }


class _Pairs:
    """For nodes of the graph, nodes that compute the same map with each pair of rows side by side."""

    def __init__(self, gm: GraphModule) -> None:
        self._gm = gm
        self._computed: dict[Node, Node] = {}  # in place of nodes that are removed
        self._viewed: dict[Node, Node] = {}  # views of nodes that stay

    def convolve(self, node: Node) -> None:
        x, weight, *rest = node.args
        assert isinstance(x, Node) and isinstance(weight, Node)
        added = [
            [add_constant(self._gm, f"{weight.target}_{kind}_{i}", value, node) for i, value in enumerate(values)]
            for kind, values in zip(("rows", "taps"), pair_kernels(constant(self._gm, weight)), strict=True)
        ]
        args = (self._paired(x, node), *added, rest[0] if rest else None)
        with self._gm.graph.inserting_before(node):
            self._computed[node] = self._gm.graph.call_function(convolution_of_pairs, args)

    def repeat(self, node: Node) -> None:
        """Copy a node, with inputs whose rows are in pairs."""
        sources = {x: self._paired(x, node) for x in node.all_input_nodes if _is_map_of(x, node)}
        with self._gm.graph.inserting_before(node):
            self._computed[node] = self._gm.graph.node_copy(node, lambda x: sources.get(x, x))

    def replace(self) -> None:
        """Remove the nodes that were converted; their remaining users get the plain map again."""
        for node, paired in reversed(self._computed.items()):
            if node.users:
                with self._gm.graph.inserting_after(paired):
                    plain = self._gm.graph.call_function(aten.reshape.default, (paired, list(_shape(node))))
                plain.meta["val"] = node.meta["val"]
                node.replace_all_uses_with(plain)
            self._gm.graph.erase_node(node)

    def _paired(self, node: Node, before: Node) -> Node:
        if node in self._computed:
            return self._computed[node]
        if node not in self._viewed:
            with self._gm.graph.inserting_before(before):
                if node.target == upsample_by_phases:  # it can arrange its rows itself
                    new = self._gm.graph.call_function(upsample_by_phases, (*node.args, 2))
                else:
                    n, c, h, w = _shape(node)
                    new = self._gm.graph.call_function(aten.reshape.default, (node, [n, c, h // 2, 2 * w]))
            self._viewed[node] = new
        return self._viewed[node]


def pair_kernels(kernel: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The arguments `rows` and `taps` of `convolution_of_pairs` for a kernel (C_out, C_in, 3, 3).

    Returns four depthwise kernels, (C_in, 1, 1, 2) over one pair of rows or (C_in, 1, 3, 2) over the pairs around it
    too, and four kernels (C_out, C_in, 1, 3).
    """
    rows = []
    for above, first, second, below in ROWS:
        pairs = torch.tensor([[0, above], [first, second], [below, 0]], dtype=kernel.dtype)
        needed = pairs if above or below else pairs[1:2]
        rows.append(needed.expand(kernel.shape[1], 1, -1, -1).contiguous())
    taps = torch.einsum("ka,oiax->koix", torch.tensor(TAPS, dtype=torch.float64), kernel.double())
    return rows, [each.unsqueeze(2).to(kernel.dtype) for each in taps]


def convolution_of_pairs(z: Tensor, rows: list[Tensor], taps: list[Tensor], bias: Tensor | None) -> Tensor:
    """The convolution of a map whose rows are in pairs, z (N, C_in, H/2, 2W), as (N, C_out, H/2, 2W).

    rows, taps: as from `pair_kernels`.  bias: (C_out,).
    """
    width = z.shape[3] // 2
    products = []
    for index, (row, tap) in enumerate(zip(rows, taps, strict=True)):
        around = row.shape[2] // 2  # pairs above and below
        u = functional.conv2d(z, row, dilation=(1, width), padding=(around, 0), groups=z.shape[1])
        # The bias goes into the second product, which each of the two output rows contains once.
        products.append(functional.conv2d(u, tap, bias if index == 1 else None, padding=(0, 1)))
    above, plus, minus, below = products
    return torch.cat([above + plus + minus, plus - minus - below], dim=3)


def _shape(node: Node) -> Size:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) and value.dim() == 4 else ()


def _is_map_of(node: Node, result: Node) -> bool:
    """Whether a node is a map with the pixels of the result, not a constant."""
    return not is_constant(node) and _shape(node) != () and _shape(node)[2:] == _shape(result)[2:]


def _treats_pixels_alike(node: Node) -> bool:
    """Whether a node computes each pixel in the same way, from no other pixel than itself or from all of them alike."""
    if node.target not in ALIKE:
        return False
    if node.target == aten.conv2d.default:
        kernel = node.args[1].meta["val"].shape  # type: ignore[union-attr]
        return kernel[2:] == (1, 1) and options_of(node)[:2] == ([1, 1], [0, 0])
    if node.target == aten.cat.default:
        return node.args[1:] == (1,) and all(_is_map_of(x, node) for x in node.all_input_nodes)
    if node.target in (aten.group_norm.default, group_norm_of_means):
        return True
    others = [x.meta.get("val") for x in node.all_input_nodes if not _is_map_of(x, node)]
    spread = all(isinstance(x, Tensor) and math.prod(x.shape[-2:]) == 1 for x in others)  # over the pixels
    return spread and len(others) < len(node.all_input_nodes)
