"""What a convolution in a graph was called with, its defaults included."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from .constants import constant, is_constant

__all__ = ["is_plain_3x3", "options_of"]

DEFAULTS = ([1, 1], [0, 0], [1, 1], 1)


def options_of(node: Node) -> tuple[Any, ...]:
    """(stride, padding, dilation, groups) of a node of aten.conv2d: three pairs and a number."""
    given = tuple(node.args[3:])
    return (*given, *DEFAULTS[len(given) :])


def is_plain_3x3(gm: GraphModule, node: Node) -> bool:
    """Whether a node of aten.conv2d has a constant 3×3 kernel, stride 1 and padding 1, which keep the map's size."""
    if not is_constant(node.args[1]) or constant(gm, node.args[1]).shape[2:] != (3, 3):
        return False
    return options_of(node) == ([1, 1], [1, 1], [1, 1], 1)
