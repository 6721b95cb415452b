"""An exported program as an ONNX graph in float32, and the list of its convolutions and linear layers."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from ...dependencies import silenced
from ...errors import ExportError, first_line
from ...graphs.layers import Layer

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPSET = 20  # opset 21 has GroupNormalization, which needs TensorRT 10.9; JetPack 6 has 10.3
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
PRODUCTS = tuple(_CHANNEL_AXIS)
_SCOPES = "pkg.torch.onnx.name_scopes"


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
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps it in pages of advice
            cause = cause.__cause__
        raise ExportError(f"the jetson target cannot convert this model: {first_line(cause)}") from None
    return tidy(exported.model)


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
    """A ModelProto without the exporter's metadata, which contains local paths."""
    common.TopologicalSortPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "rdd-edge", None
    return ir.to_proto(model)


def products(model: ir.Model, layers: list[Layer]) -> list[tuple[Layer, ir.Node]]:
    """Each convolution and linear layer of the graph with its node, whose second input is the weight.

    layers: those of the program that the graph was converted from.
    """
    of_node = {layer.node.name: layer for layer in layers}
    nodes = [node for node in model.graph if node.op_type in PRODUCTS and constant(node.inputs[1]) is not None]
    # The last scope that the exporter records is the program's node from which it made this one.
    names = [ast.literal_eval(node.metadata_props[_SCOPES])[-1] for node in nodes]
    return [(of_node[name], node) for name, node in zip(names, nodes, strict=True) if name in of_node]


def channel_axis(node: ir.Node) -> int:
    """Axis of a product's weight along which its output channels lie."""
    return 0 if node.attributes.get_int("transB", 0) else _CHANNEL_AXIS[node.op_type]


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


def new_node(
    op_type: str, name: str, inputs: list[ir.Value], output: str, dtype: ir.DataType, attributes: list[ir.Attr]
) -> ir.Node:
    """A node that is not in the graph yet, with one output of the shape of its first input."""
    value = ir.Value(name=output, shape=inputs[0].shape, type=ir.TensorType(dtype))
    return ir.Node("", op_type, inputs, attributes, outputs=[value], name=name)
