"""Nodes of an exported graph: its constants, and the options of its convolutions."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

DEFAULTS = ([1, 1], [0, 0], [1, 1], 1)


def is_constant(node: object) -> bool:
    """Whether an argument of a node is a weight or another constant tensor."""
    return isinstance(node, Node) and node.op == "get_attr"


def constant(gm: GraphModule, node: object) -> Tensor:
    """The tensor of a node for which `is_constant` is true."""
    assert isinstance(node, Node)
    value = attrgetter(str(node.target))(gm)
    assert isinstance(value, Tensor)
    return value.detach()


def add_constant(gm: GraphModule, name: str, value: Tensor, before: Node) -> Node:
    """A new get_attr node in front of `before`. `name` is a dotted path, made unique with underscores."""
    *path, leaf = name.split(".")
    owner: nn.Module = gm
    for part in path:
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    while hasattr(owner, leaf):
        leaf += "_"
    owner.register_buffer(leaf, value.detach().clone())
    with gm.graph.inserting_before(before):
        node = gm.graph.get_attr(".".join([*path, leaf]))
    node.meta["val"] = value.detach()
    return node


def same_rows(value: Tensor) -> Tensor | None:
    """One row (1, ...) of a tensor (N, ...) whose rows are all equal, or None where they differ."""
    return value[:1] if torch.equal(value, value[:1].expand_as(value)) else None


def options_of(node: Node) -> tuple[Any, ...]:
    """(stride, padding, dilation, groups) of a node of aten.conv2d: three pairs and an integer."""
    given = tuple(node.args[3:])
    return (*given, *DEFAULTS[len(given) :])


def is_plain_3x3(gm: GraphModule, node: Node) -> bool:
    """Whether a node of aten.conv2d has a constant 3×3 kernel, stride 1 and padding 1, so that it keeps H and W."""
    if not is_constant(node.args[1]) or constant(gm, node.args[1]).shape[2:] != (3, 3):
        return False
    return options_of(node) == ([1, 1], [1, 1], [1, 1], 1)
