"""An exported program as an ONNX graph in float32, and the list of its convolutions and linears."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from ...dependencies import silenced
from ...errors import ExportError, first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = [
    "OPSET", "PRODUCTS", "Product", "add_initializer", "channel_axis", "constant", "convert", "products", "tidy",
    "to_proto",
]  # fmt: skip

OPSET = 20  # 21 has GroupNormalization, which needs TensorRT 10.9; JetPack 6 has 10.3
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
PRODUCTS = tuple(_CHANNEL_AXIS)
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Product:
    """A convolution or a linear: a node with a constant weight as its second input."""

    layer: str  # its name in the program, as in `keep`
    node: ir.Node
    channel_axis: int  # of the weight: the axis of its output channels
    macs: int  # multiplications of one run


def convert(program: ExportedProgram) -> ir.Model:
    """The program as ONNX, constants folded, inputs z [, label], output x. Raises ExportError."""
    import torch

    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    try:
        with silenced():
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=names, output_names=["x"], verbose=False
            )
            assert exported is not None
            exported.optimize()
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"the jetson target cannot take this model: {_reason(error)}") from None
    model = exported.model
    return tidy(model)


def tidy(model: ir.Model) -> ir.Model:
    """Remove dead nodes, identities and duplicate constants."""
    for rewrite in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
    ):
        rewrite(model)
    return model


def to_proto(model: ir.Model) -> Any:
    """A ModelProto without the exporter's metadata, which contains paths of this machine."""
    common.TopologicalSortPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "rdd-edge", None
    return ir.to_proto(model)


def products(model: ir.Model, names: dict[str, str]) -> list[Product]:
    """Every convolution and linear, in the order of the graph.

    names: the layer of each node of the program that the graph was converted from.
    """
    return list(_products(model, names))


def _products(model: ir.Model, names: dict[str, str]) -> Iterator[Product]:
    for node in model.graph:
        if node.op_type not in PRODUCTS or constant(node.inputs[1]) is None:
            continue
        layer = _layer(node, names)
        if layer is None:
            continue
        axis = channel_axis(node.op_type, bool(node.attributes.get_int("transB", 0)))
        yield Product(layer, node, axis, _macs(node, axis))


def channel_axis(op_type: str, transposed: bool) -> int:
    """Axis of a product's weight along which its output channels lie.  transposed: Gemm's transB."""
    return 0 if transposed else _CHANNEL_AXIS[op_type]


def _macs(node: ir.Node, channel_axis: int) -> int:
    weight, x, y = (_shape(v) for v in (node.inputs[1], node.inputs[0], node.outputs[0]))
    if node.op_type == "ConvTranspose":  # each input pixel is multiplied by the whole kernel of its channel
        return int(np.prod(x) * np.prod(weight[1:]))
    return int(np.prod(y) * np.prod(weight) // weight[channel_axis])


def _shape(value: ir.Value | None) -> list[int]:
    assert value is not None
    assert value.shape is not None
    return [int(d) for d in value.shape]  # type: ignore[arg-type]  # export_program fixes every dimension


def _layer(node: ir.Node, names: dict[str, str]) -> str | None:
    """The exporter records, as a node's last scope, the program's node from which it was made."""
    return names.get(ast.literal_eval(node.metadata_props[_SCOPES])[-1])


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer, or None for anything else."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def add_initializer(model: ir.Model, name: str, array: NDArray[Any]) -> ir.Value:
    """A new constant of the graph."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause, which the exporter wraps in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
