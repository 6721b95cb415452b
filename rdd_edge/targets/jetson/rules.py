"""TensorRT's rules, checked on the saved graph: what its parser or its optimizer would refuse, or run slowly.

Sources: onnx-tensorrt's docs/operators.md (of TensorRT 8.4: what it takes, 10 and 11 take as well), TensorRT's
developer guide on strongly typed networks and on explicit quantization, and TensorRT 11's removal of weak typing. Each
function gives sentences, one for each fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...errors import ArtifactError, first_line
from .graph import OPSET, PRODUCTS, channel_axis

__all__ = ["broken_rules"]

# Of onnx-tensorrt's operators.md for TensorRT 8.4 (commit 009d654), the newest that could be read: those that a
# diffusion U-Net can be made of.
SUPPORTED = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape",
    "Conv", "ConvTranspose", "Cos", "DepthToSpace", "DequantizeLinear", "Div", "Einsum", "Elu", "Equal", "Erf",
    "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm",
    "GlobalAveragePool", "Greater", "GreaterOrEqual", "HardSigmoid", "Identity",
    "InstanceNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "MatMul", "Max",
    "MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "Pad", "Pow", "QuantizeLinear",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "Resize", "Round", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_RESIZE = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
_FLOATING = ("float32", "float16")


@dataclass(frozen=True)
class _Graph:
    proto: Any  # onnx.ModelProto
    types: dict[str, str]  # value → numpy's name of its type
    constants: dict[str, NDArray[Any]]
    made_by: dict[str, Any]  # value → node

    @property
    def nodes(self) -> list[Any]:
        return list(self.proto.graph.node)

    def dequantized(self, name: str) -> Any | None:
        """The DequantizeLinear that made a value, or None."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None


_Rule = Callable[[_Graph], Iterator[str]]


def broken_rules(path: Path, precision: str) -> tuple[str, ...]:
    """What TensorRT would refuse or run slowly in the graph at `path`, one clause each. Raises ArtifactError."""
    graph = _read(path)
    rules: list[_Rule] = [_opset, _operators, _restrictions, _static, _interface, _one_type]
    rules += [_quantize_pairs, _quantized_products] if precision == "int8" else [_no_quantization]
    return tuple(fault for rule in rules for fault in rule(graph)) + tuple(_types(graph, precision))


def _read(path: Path) -> _Graph:
    onnx = import_or_explain("onnx", "checking an ONNX graph", "jetson")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except Exception as error:  # protobuf's, the checker's and the inferrer's have no common base
        reason = first_line(error)
        raise ArtifactError(f"{path} is not a sound ONNX graph: {reason}") from None
    graph, types = inferred.graph, {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        types[value.name] = _type_name(onnx, value.type.tensor_type.elem_type)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    types.update({tensor.name: _type_name(onnx, tensor.data_type) for tensor in graph.initializer})
    return _Graph(inferred, types, constants, {name: node for node in graph.node for name in node.output})


def _type_name(onnx: Any, number: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(number))


def _opset(graph: _Graph) -> Iterator[str]:
    for opset in graph.proto.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"it uses operators of the domain {opset.domain}, which TensorRT does not know"
        elif opset.version > OPSET:
            yield f"its opset is {opset.version}, and TensorRT before 10.9 reads up to {OPSET}"


def _operators(graph: _Graph) -> Iterator[str]:
    for name in sorted({node.op_type for node in graph.nodes} - SUPPORTED):
        yield f"TensorRT has no operator {name}"


def _restrictions(graph: _Graph) -> Iterator[str]:
    """Of operators that TensorRT takes in some forms only: that list's last column."""
    for node in graph.nodes:
        options = {a.name: a.s.decode() for a in node.attribute if a.type == a.STRING}
        if node.op_type == "InstanceNormalization" and not {*node.input[1:]} <= graph.constants.keys():
            yield f"InstanceNormalization {node.name} has a scale or a bias that is not a constant"
        if node.op_type == "Resize":
            if options.get("mode", "nearest") not in ("nearest", "linear"):
                yield f"Resize {node.name} interpolates by {options['mode']}"
            if options.get("coordinate_transformation_mode", "half_pixel") not in _RESIZE:
                yield f"Resize {node.name} places its pixels by {options['coordinate_transformation_mode']}"


def _static(graph: _Graph) -> Iterator[str]:
    for value in [*graph.proto.graph.input, *graph.proto.graph.output]:
        if any(not d.HasField("dim_value") or d.dim_value < 1 for d in value.type.tensor_type.shape.dim):
            yield f"{value.name} has a dynamic size"


def _interface(graph: _Graph) -> Iterator[str]:
    for value in [*graph.proto.graph.input, *graph.proto.graph.output]:
        expected = "int64" if value.name == "label" else "float32"
        if graph.types[value.name] != expected:
            yield f"{value.name} is {graph.types[value.name]}, and the harness gives and takes {expected}"


def _one_type(graph: _Graph) -> Iterator[str]:
    """Strong typing: no operator converts by itself, so the floating-point operands of a node are of one type."""
    for node in graph.nodes:
        if node.op_type in ("Cast", "Resize", "QuantizeLinear", "DequantizeLinear"):
            continue
        kinds = {graph.types.get(name) for name in (*node.input, *node.output) if graph.types.get(name) in _FLOATING}
        if len(kinds) > 1:
            yield f"{node.op_type} {node.name} mixes float16 and float32 without a cast"


def _no_quantization(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield f"{node.op_type} {node.name} stands in a graph that is not int8"


def _types(graph: _Graph, precision: str) -> Iterator[str]:
    """Products compute in the type of the precision: an island of another type is slow, or a quiet loss."""
    expected = "float32" if precision == "fp32" else "float16"
    for node in graph.nodes:
        if node.op_type in PRODUCTS and graph.types.get(node.output[0]) != expected:
            yield f"{node.op_type} {node.name} computes in {graph.types.get(node.output[0])}, not in {expected}"


def _quantize_pairs(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _scale_faults(graph, node)
        if node.op_type == "QuantizeLinear":
            readers = [other.op_type for other in graph.nodes if node.output[0] in other.input]
            if set(readers) != {"DequantizeLinear"}:
                yield f"QuantizeLinear {node.name} is not followed by DequantizeLinear alone"


def _scale_faults(graph: _Graph, node: Any) -> Iterator[str]:
    scale = graph.constants.get(node.input[1])
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or not (np.isfinite(scale).all() and (scale > 0).all()):
        yield f"{node.op_type} {node.name} has no constant positive scale"
    elif scale.dtype != np.float16:
        yield f"{node.op_type} {node.name} has a {scale.dtype} scale, which makes a float32 island around its product"
    if zero is None or zero.dtype != np.int8:
        yield f"{node.op_type} {node.name} does not round to int8"
    elif zero.any():
        yield f"{node.op_type} {node.name} has a zero point that is not 0: TensorRT quantizes symmetrically"


def _quantized_products(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op_type not in PRODUCTS:
            continue
        activation, weight = (graph.dequantized(name) for name in node.input[:2])
        if (activation is None) != (weight is None):
            yield f"{node.op_type} {node.name} has one int8 operand only, so it computes in float16"
        elif activation is not None and weight is not None:
            yield from _product_faults(graph, node, activation, weight)


def _product_faults(graph: _Graph, node: Any, activation: Any, weight: Any) -> Iterator[str]:
    if graph.constants.get(activation.input[1], np.zeros(2)).size != 1:
        yield f"{node.op_type} {node.name} reads an activation with more than one scale"
    integers = graph.constants.get(weight.input[0])
    if integers is None:
        yield f"{node.op_type} {node.name} has a weight that is not a constant"
        return
    axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
    trans_b = next((a.i for a in node.attribute if a.name == "transB"), 0)
    expected = channel_axis(node.op_type, bool(trans_b))
    scales = graph.constants.get(weight.input[1], np.zeros(0))
    if axis != expected or scales.shape != (integers.shape[expected],):
        yield f"{node.op_type} {node.name} has weight scales that do not lie along its output channels"
