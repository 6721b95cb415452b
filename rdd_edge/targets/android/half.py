"""A float32 program in float16: half the bytes, and on a phone with fp16 arithmetic (Armv8.2 and later) half the time.

Input and output stay float32. So do the squares of a normalisation and what is made of them up to the reciprocal root:
in float16 a square overflows once an activation is 256 from its mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from ...export.constants import add_constant, constant

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["to_half"]

aten = torch.ops.aten
FP16_MAX = torch.finfo(torch.float16).max


def to_half(program: ExportedProgram) -> ExportedProgram:
    """The program with float16 weights and activations. Weights beyond ±65504 become that."""
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    for node in list(gm.graph.nodes):
        if node.op == "get_attr" and constant(gm, node).dtype == torch.float32:
            half = constant(gm, node).clamp(-FP16_MAX, FP16_MAX).half()
            node.replace_all_uses_with(add_constant(gm, f"{node.target}_half", half, node))
            gm.graph.erase_node(node)
        elif node.op == "placeholder" and node.meta["val"].dtype == torch.float32:
            _cast_after(gm, node, torch.float16)
        elif node.target == aten.mul.Tensor and node.args[0] is node.args[1]:
            _widen(gm, node)
        elif node.target == aten.rsqrt.default:
            _cast_after(gm, node, torch.float16)
        elif node.op == "output":
            _widen_result(gm, node)
    gm.recompile()
    with torch.no_grad():
        return torch.export.export(gm, *_inputs(program), strict=False)


def _inputs(program: ExportedProgram) -> tuple[Any, ...]:
    assert program.example_inputs is not None
    return program.example_inputs


def _cast_after(gm: GraphModule, node: Node, dtype: torch.dtype) -> None:
    with gm.graph.inserting_after(node):
        cast = gm.graph.call_function(aten.to.dtype, (node, dtype))
    node.replace_all_uses_with(cast, lambda user: user is not cast)


def _widen(gm: GraphModule, square: Node) -> None:
    with gm.graph.inserting_before(square):
        wide = gm.graph.call_function(aten.to.dtype, (square.args[0], torch.float32))
    square.args = (wide, wide)


def _widen_result(gm: GraphModule, output: Node) -> None:
    """The final clamp in float32."""
    (clamp,) = output.args[0]  # type: ignore[misc, union-attr]
    with gm.graph.inserting_before(clamp):  # type: ignore[arg-type]
        wide = gm.graph.call_function(aten.to.dtype, (clamp.args[0], torch.float32))  # type: ignore[union-attr, index]
    clamp.update_arg(0, wide)  # type: ignore[union-attr]
