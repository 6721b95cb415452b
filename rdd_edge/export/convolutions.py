"""What a convolution in a graph was called with, its defaults included."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

__all__ = ["options_of"]

DEFAULTS = ([1, 1], [0, 0], [1, 1], 1)


def options_of(node: Node) -> tuple[Any, ...]:
    """(stride, padding, dilation, groups) of a node of aten.conv2d: three pairs and a number."""
    given = tuple(node.args[3:])
    return (*given, *DEFAULTS[len(given) :])
