"""An exported program as an ONNX graph in float32, and its convolutions and linears as a list."""

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
from ...errors import ExportError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["OPSET", "Product", "add_initializer", "constant", "convert", "products", "tidy", "to_proto"]

OPSET = 20  # 21 brings GroupNormalization, which TensorRT takes from 10.9 on, and JetPack 6 has 10.3
_OUTPUT_CHANNEL = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}  # axis of the weight; Gemm: by transB
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Product:
    """A convolution or a linear: a node with a constant weight as its second input."""

    layer: str  # the program's name of it: what `keep` names
    node: ir.Node
    channel_axis: int  # of the weight, along which the outputs lie
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
    """Drop what nothing uses: dead nodes, identities, copies of the same constant."""
    for rewrite in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
    ):
        rewrite(model)
    return model


def to_proto(model: ir.Model) -> Any:
    """A ModelProto without the exporter's notes, which hold paths of the machine that exported."""
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
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or constant(node.inputs[1]) is None:
            continue
        layer = _layer(node, names)
        if layer is None:
            continue
        transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
        axis = _OUTPUT_CHANNEL.get(node.op_type, 0 if transposed else 1)
        yield Product(layer, node, axis, _macs(node, axis))


def _macs(node: ir.Node, channel_axis: int) -> int:
    weight, x, y = (_shape(v) for v in (node.inputs[1], node.inputs[0], node.outputs[0]))
    if node.op_type == "ConvTranspose":  # each input pixel meets the whole kernel of its channel
        return int(np.prod(x) * np.prod(weight[1:]))
    return int(np.prod(y) * np.prod(weight) // weight[channel_axis])


def _shape(value: ir.Value | None) -> list[int]:
    assert value is not None
    assert value.shape is not None
    return [int(d) for d in value.shape]  # type: ignore[arg-type]  # export_program fixes every dimension


def _layer(node: ir.Node, names: dict[str, str]) -> str | None:
    """The exporter notes at each node which node of the program it came from, as the last of its scopes."""
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
    """The innermost cause, in one line: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
