"""Constant folding: t is always 1, so everything that depends on t alone is folded into the neighbouring layers.

In an unconditional model, the sinusoidal embedding, the time MLP and each block's time layer disappear: a constant
added to a convolution becomes part of its bias, and one that scales or shifts a normalisation part of its weight and
bias. In a conditional model, a value that depends on the label alone is a table with a row per class: the label
embedding, the time embedding added to it and the activation become one table, and so does a block's own layer where
the table is no larger than the layer's weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from ...graphs.nodes import add_constant, constant, is_constant, same_rows

aten = torch.ops.aten
ROWWISE = (aten.silu.default, aten.to.dtype, aten.gelu.default, aten.relu.default, aten.mish.default)


def fold_time(gm: GraphModule) -> None:
    """Evaluate constants, turn values that depend on the label alone into tables, and fold constants into layers."""
    _fold_constants(gm)
    for node in list(gm.graph.nodes):
        if node.target == aten.embedding.default and is_constant(node.args[0]):
            _grow_table(gm, node)
    for node in list(gm.graph.nodes):
        if node.target in (aten.add.Tensor, aten.mul.Tensor) and not node.kwargs:
            _fold_into_source(gm, node)


def _fold_constants(gm: GraphModule) -> None:
    """Replace each value that depends on no input, and that is used by one that does, by a constant."""
    values: dict[Node, Any] = {}
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            values[node] = constant(gm, node)
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*args, **kwargs)
    for node, value in values.items():
        used = any(user not in values for user in node.users)
        if used and node.op == "call_function" and isinstance(value, Tensor):
            name = f"folded.{node.name}"
            node.replace_all_uses_with(add_constant(gm, name, value, node), lambda user: user not in values)
    for node in reversed([node for node in values if node.op == "call_function"]):
        if not node.users:
            gm.graph.erase_node(node)


def _grow_table(gm: GraphModule, lookup: Node) -> None:
    """Move the row-wise operators that follow a lookup into its table; users with the same operation share a table."""
    groups: dict[Any, list[Node]] = {}
    for user in list(lookup.users):
        if user.target == aten._assert_tensor_metadata.default:
            gm.graph.erase_node(user)
            continue
        groups.setdefault((user.target, user.args, tuple(user.kwargs.items())), []).append(user)
    for users in groups.values():
        table = _next_table(gm, users[0], lookup)
        if table is None:
            continue
        node = add_constant(gm, f"folded.{users[0].name}", table, users[0])
        with gm.graph.inserting_after(node):
            grown = gm.graph.call_function(aten.embedding.default, (node, lookup.args[1]))
        grown.meta["val"] = users[0].meta["val"]
        for user in users:
            user.replace_all_uses_with(grown)
            gm.graph.erase_node(user)
        _grow_table(gm, grown)


def _next_table(gm: GraphModule, user: Node, lookup: Node) -> Tensor | None:
    """The table of `user`, which follows `lookup`; None where it is not row-wise or would be larger than its layer."""
    rows = constant(gm, lookup.args[0])  # (classes, D)
    others = [arg for arg in user.args[1:] if isinstance(arg, Node)]
    with torch.no_grad():
        if user.target in ROWWISE and not others:
            return user.target(rows, *user.args[1:])  # type: ignore[no-any-return]
        if user.target == aten.add.Tensor and not user.kwargs:
            other = user.args[1] if user.args[0] is lookup else user.args[0]
            row = same_rows(constant(gm, other)) if is_constant(other) else None
            return None if row is None or row.dim() != 2 else rows + row
        if user.target == aten.linear.default and user.args[0] is lookup and rows.shape[0] <= rows.shape[1]:
            return aten.linear.default(rows, *(constant(gm, arg) for arg in others))  # type: ignore[no-any-return]
    return None


def _fold_into_source(gm: GraphModule, node: Node) -> None:
    """Fold a constant per channel into the convolution or normalisation whose result `node` adds it to or scales."""
    left, right = node.args[:2]
    source, other = (left, right) if is_constant(right) else (right, left)
    if not is_constant(other) or not isinstance(source, Node) or len(source.users) != 1:
        return
    row = same_rows(constant(gm, other))
    if row is None or row.dim() != 4 or row.shape != (1, node.meta["val"].shape[1], 1, 1):
        return
    changed = _parameters_to_change(source, node)
    if not all(len(source.args) > index and is_constant(source.args[index]) for index in changed):
        return
    for index in changed:
        old = source.args[index]
        value, by = constant(gm, old).double(), row.flatten().double()
        new = (value + by if node.target == aten.add.Tensor else value * by).float()
        source.update_arg(index, add_constant(gm, f"{old.target}_folded", new, source))  # type: ignore[union-attr]
    if changed:
        node.replace_all_uses_with(source)
        gm.graph.erase_node(node)


def _parameters_to_change(source: Node, node: Node) -> tuple[int, ...]:
    """Indices of the arguments of `source` to change: a sum changes the bias, a product the bias and the weight."""
    add = node.target == aten.add.Tensor
    if source.target == aten.group_norm.default:
        return (3,) if add else (2, 3)
    return (2,) if source.target == aten.conv2d.default and add else ()
