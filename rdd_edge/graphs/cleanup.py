"""Removal of operators that compute nothing: dropout in evaluation, division by one, conversions to the same type."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def graph_of(program: ExportedProgram) -> GraphModule:
    """The program as a module to edit, which `export_again` turns back into a program."""
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    return gm


def simplify(gm: GraphModule) -> None:
    """Remove every operator whose result equals an earlier tensor, and every check of a tensor's type."""
    for node in list(gm.graph.nodes):
        if node.target == aten._assert_tensor_metadata.default:
            gm.graph.erase_node(node)
        elif node.op == "call_function" and (same := _equal_to(node)) is not None:
            node.replace_all_uses_with(same)
            gm.graph.erase_node(node)


def remove_dead(gm: GraphModule) -> None:
    """Remove every unused node, except checks of a tensor's type. A network in evaluation has no side effects."""
    for node in reversed(list(gm.graph.nodes)):
        check = node.target == aten._assert_tensor_metadata.default
        if node.op not in ("placeholder", "output") and not node.users and not check:
            gm.graph.erase_node(node)


def export_again(gm: GraphModule, program: ExportedProgram) -> ExportedProgram:
    """The edited module of `program` as a program, without unused nodes and weights."""
    remove_dead(gm)
    used = {node.target for node in gm.graph.nodes if node.op == "get_attr"}
    for name in {*dict(gm.named_parameters()), *dict(gm.named_buffers())} - used:
        owner, _, leaf = name.rpartition(".")
        delattr(gm.get_submodule(owner), leaf)
    gm.recompile()
    assert program.example_inputs is not None
    with torch.no_grad():
        return torch.export.export(gm, *program.example_inputs, strict=False)


def _equal_to(node: Node) -> Node | None:
    """The earlier node that has the same value, or None."""
    source, target, args = node.args[0] if node.args else None, node.target, node.args
    if not isinstance(source, Node):
        return None
    if target == aten.dropout.default and (args[1] == 0.0 or args[2] is False):
        return source
    if target in (aten.div.Tensor, aten.mul.Tensor) and args[1] == 1 and _same(node, source):
        return source
    if target in (aten.to.dtype, aten.view.default, aten.reshape.default) and _same(node, source):
        return source
    if target == aten.transpose.int and source.target == target and _dims(source) == _dims(node):
        return source.args[0]  # type: ignore[return-value]
    return None


def _same(node: Node, source: Node) -> bool:
    """Whether both have the same type and shape."""
    before, after = source.meta["val"], node.meta["val"]
    return bool(before.dtype == after.dtype and before.shape == after.shape)


def _dims(node: Node) -> set[int]:
    """The two dimensions that a transposition swaps."""
    rank = node.meta["val"].dim()
    return {int(dim) % rank for dim in node.args[1:3]}  # type: ignore[arg-type]
