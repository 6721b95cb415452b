"""Multiplications of the convolutions and linear layers of an exported graph, for one run at its batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from ..errors import UsageError
from .nodes import constant, is_constant, layer_name

__all__ = ["AVERAGING", "PRODUCTS", "TRANSPOSED", "Layer", "layers", "total_macs", "without"]

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv2d.default, aten.convolution.default)
TRANSPOSED = (aten.conv_transpose2d.input,)
PRODUCTS = (*CONVOLUTIONS, *TRANSPOSED, aten.linear.default)
AVERAGING = "average"  # the weight of a product that is part of a normalisation: no layer of the network


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer: its name in the network, its node, and its multiplications."""

    name: str
    node: Node
    macs: int


def layers(gm: GraphModule) -> list[Layer]:
    """The convolutions and linear layers with constant weights, in the order in which they run."""
    found = [node for node in gm.graph.nodes if node.target in PRODUCTS and is_layer_weight(node.args[1])]
    return [Layer(layer_name(node.args[1]), node, _macs(gm, node)) for node in found]


def is_layer_weight(weight: object) -> bool:
    """Whether an argument is the constant weight of a layer."""
    return is_constant(weight) and not str(weight.target).endswith(f".{AVERAGING}")  # type: ignore[attr-defined]


def total_macs(gm: GraphModule) -> int:
    """Multiplications of all of them together; border effects of padding are not subtracted."""
    return sum(layer.macs for layer in layers(gm))


def _macs(gm: GraphModule, node: Node) -> int:
    """Each output value needs weight.numel() / C_out products; in a transposed one, each input value numel() / C_in."""
    weight = constant(gm, node.args[1])
    per_value = weight.numel() // weight.shape[0]
    values = node.args[0] if node.target in TRANSPOSED else node
    return math.prod(values.meta["val"].shape) * per_value  # type: ignore[union-attr]


def without(every: list[Layer], keep: tuple[str, ...]) -> tuple[list[Layer], float]:
    """The layers but those named in `keep`, and their fraction of the multiplications of all.

    Raises UsageError for a name that no layer has.
    """
    if unknown := sorted(set(keep) - {layer.name for layer in every}):
        raise UsageError(f"there is no convolution or linear layer named {unknown[0]} to keep in higher precision")
    chosen = [layer for layer in every if layer.name not in keep]
    return chosen, sum(layer.macs for layer in chosen) / max(sum(layer.macs for layer in every), 1)
