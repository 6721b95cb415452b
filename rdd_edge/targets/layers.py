"""The convolutions and linears of an exported program by their names in the network, for targets that quantize them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["check_keep", "layer_names"]

AVERAGE = ".average"  # the weight of a product that is part of a rewritten normalisation: no layer of the network


def layer_names(program: ExportedProgram) -> dict[str, str]:
    """Node name → layer name ("down_blocks.0.resnets.0.conv1") of every product with a constant weight."""
    import torch

    aten = torch.ops.aten
    products = (aten.conv2d.default, aten.convolution.default, aten.conv_transpose2d.input, aten.linear.default)
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    weights.update(signature.inputs_to_lifted_tensor_constants)
    return {
        node.name: weights[node.args[1].name].rpartition(".")[0].removeprefix("unet.")
        for node in program.graph.nodes
        if node.target in products and not weights.get(getattr(node.args[1], "name", ""), AVERAGE).endswith(AVERAGE)
    }


def check_keep(keep: tuple[str, ...], names: Collection[str]) -> None:
    """Raise UsageError for a layer to keep that the program does not have."""
    if unknown := sorted(set(keep) - set(names)):
        raise UsageError(f"there is no convolution or linear named {unknown[0]} to keep in higher precision")
