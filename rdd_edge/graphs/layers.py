"""The convolutions and linear layers of an exported graph, with their multiplications in one inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from ..errors import UsageError
from .nodes import constant, is_constant

aten = torch.ops.aten
TRANSPOSED = (aten.conv_transpose2d.input,)
PRODUCTS = (aten.conv2d.default, aten.convolution.default, *TRANSPOSED, aten.linear.default)
AVERAGING = "average"  # the weight of a product that is part of a normalization, not a layer of the network


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer."""

    name: str  # in the network: "down_blocks.0.resnets.0.conv1"
    node: Node
    macs: int


def layers(gm: GraphModule) -> list[Layer]:
    """The convolutions and linear layers with constant weights, in the order in which they run."""
    found = []
    for node in gm.graph.nodes:
        if node.target in PRODUCTS and is_constant(node.args[1]):
            name, _, weight = str(node.args[1].target).rpartition(".")
            if weight != AVERAGING:
                found.append(Layer(name.removeprefix("unet."), node, _macs(gm, node)))
    return found


def total_macs(gm: GraphModule) -> int:
    """Multiplications of all layers; those with the zeros of a padding are included."""
    return sum(layer.macs for layer in layers(gm))


def _macs(gm: GraphModule, node: Node) -> int:
    """numel() / C_out for each output value; for a transposed convolution, numel() / C_in for each input value."""
    weight = constant(gm, node.args[1])
    per_value = weight.numel() // weight.shape[0]
    values = node.args[0] if node.target in TRANSPOSED else node
    return math.prod(values.meta["val"].shape) * per_value  # type: ignore[union-attr]


def without(every: list[Layer], keep: tuple[str, ...]) -> tuple[list[Layer], float]:
    """The layers except those named in `keep`, and their fraction of all multiplications.

    Raises UsageError for a name that no layer has.
    """
    if unknown := sorted(set(keep) - {layer.name for layer in every}):
        raise UsageError(f"there is no convolution or linear layer named {unknown[0]} to keep in higher precision")
    chosen = [layer for layer in every if layer.name not in keep]
    return chosen, sum(layer.macs for layer in chosen) / max(sum(layer.macs for layer in every), 1)
