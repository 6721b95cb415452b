"""A float32 program in float16: half the bytes, and half the time on a phone with fp16 arithmetic (from Armv8.2 on).

Input and output stay float32. So does a normalization from its squares to the reciprocal root: in float16 a square
overflows when an activation differs by 256 from its mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.fx import GraphModule, Node

from ...graphs.cleanup import export_again, graph_of
from ...graphs.nodes import add_constant, constant
from ..ranges import HALF_MAX

if TYPE_CHECKING:
    from torch.export import ExportedProgram

aten = torch.ops.aten


def to_half(program: ExportedProgram) -> ExportedProgram:
    """The program with float16 weights, clamped to ±65504, and activations."""
    gm = graph_of(program)
    wide = _wide(gm)
    for node in list(gm.graph.nodes):
        if node.op == "get_attr" and constant(gm, node).dtype == torch.float32:
            value = constant(gm, node).clamp(-HALF_MAX, HALF_MAX).half()
            half = add_constant(gm, f"{node.target}_half", value, node)
            node.replace_all_uses_with(half, lambda user: user not in wide)
        elif node.op == "placeholder" and node.meta["val"].dtype == torch.float32:
            _cast_after(gm, node)
        elif _is_square(node) or _is_last(node):
            _widen_before(gm, node)
        elif node.target == aten.rsqrt.default and node in wide:
            _cast_after(gm, node)
    return export_again(gm, program)


def _is_last(node: Node) -> bool:
    return bool(node.target == aten.clamp.default and all(user.op == "output" for user in node.users))


def _is_square(node: Node) -> bool:
    return bool(node.target == aten.mul.Tensor and node.args[0] is node.args[1])


def _wide(gm: GraphModule) -> set[Node]:
    """The nodes to compute in float32: squares and what depends on them, up to and including the reciprocal root."""
    found: set[Node] = set()
    for node in gm.graph.nodes:
        follows = any(s in found and s.target != aten.rsqrt.default for s in node.all_input_nodes)
        if _is_square(node) or follows:
            found.add(node)
    return found


def _cast_after(gm: GraphModule, node: Node) -> None:
    """Convert the node to float16 for all its users."""
    with gm.graph.inserting_after(node):
        cast = gm.graph.call_function(aten.to.dtype, (node, torch.float16))
    node.replace_all_uses_with(cast, lambda user: user is not cast)


def _widen_before(gm: GraphModule, node: Node) -> None:
    """Convert the first argument of the node to float32, at every position at which it occurs."""
    source = node.args[0]
    with gm.graph.inserting_before(node):
        wide = gm.graph.call_function(aten.to.dtype, (source, torch.float32))
    node.args = tuple(wide if argument is source else argument for argument in node.args)
