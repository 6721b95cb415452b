"""TensorRT's rules, checked on the saved graph: what its parser or its optimizer would refuse or run slowly.

Sources: docs/operators.md of onnx-tensorrt for TensorRT 8.4, whose operators 10 and 11 still support; TensorRT's
developer guide on strongly typed networks and on explicit quantization; the removal of weak typing in TensorRT 11.
Each rule yields one clause for each violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...dependencies import import_or_explain
from ...errors import ArtifactError, first_line
from .formats import FORMATS, Format
from .graph import OPSET, PRODUCTS, channel_axis, constant
from .half import NORMS

# The operators that a diffusion U-Net can be made of, from onnx-tensorrt's operators.md for TensorRT 8.4 (commit
# 009d654), the newest that could be read.
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
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")


def broken_rules(path: Path, precision: str) -> tuple[str, ...]:
    """What TensorRT would refuse or run slowly in the graph at `path`, one clause each. Raises ArtifactError."""
    graph = _read(path)
    rules: list[Callable[[ir.Graph], Iterator[str]]] = [
        _opset,
        _operators,
        _restrictions,
        _interface,
        _one_type,
        _norms,
    ]
    if precision in FORMATS:
        form = FORMATS[precision]
        rules += [partial(_quantize_pairs, form), partial(_quantized_products, form)]
    else:
        rules += [_no_quantization]
    return (*(clause for rule in rules for clause in rule(graph)), *_product_types(graph, precision))


def _read(path: Path) -> ir.Graph:
    onnx = import_or_explain("onnx", "checking an ONNX graph", "jetson")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        return ir.serde.deserialize_model(inferred).graph
    except Exception as error:  # protobuf, the checker and shape inference have no common base class
        raise ArtifactError(f"{path} is not a valid ONNX graph: {first_line(error)}") from None


def _nodes(graph: ir.Graph, *op_types: str) -> Iterator[tuple[ir.Node, str]]:
    """Each node of these types, and its type and name."""
    for node in graph:
        if node.op_type in op_types:
            yield node, f"{node.op_type} {node.name}"


def _type(value: ir.Value | None) -> str:
    """NumPy's name of a value's type."""
    return str(value.dtype.numpy()) if value is not None and value.dtype is not None else "of an unknown type"


def _opset(graph: ir.Graph) -> Iterator[str]:
    for domain, version in graph.opset_imports.items():
        if domain not in ("", "ai.onnx"):
            yield f"it uses operators of the domain {domain}, which TensorRT does not support"
        elif version > OPSET:
            yield f"its opset is {version}, and TensorRT before 10.9 reads up to {OPSET}"


def _operators(graph: ir.Graph) -> Iterator[str]:
    for name in sorted({node.op_type for node in graph} - SUPPORTED):
        yield f"TensorRT has no operator {name}"


def _restrictions(graph: ir.Graph) -> Iterator[str]:
    """Of operators that TensorRT supports in some forms only: that list's last column."""
    for node, label in _nodes(graph, "InstanceNormalization"):
        if any(constant(value) is None for value in node.inputs[1:]):
            yield f"{label} has a scale or a bias that is not a constant"
    for node, label in _nodes(graph, "Resize"):
        if (mode := node.attributes.get_string("mode", "nearest")) not in ("nearest", "linear"):
            yield f"{label} has the interpolation mode {mode}"
        if (mode := node.attributes.get_string("coordinate_transformation_mode", "half_pixel")) not in _RESIZE:
            yield f"{label} has the coordinate transformation mode {mode}"


def _interface(graph: ir.Graph) -> Iterator[str]:
    for value in (*graph.inputs, *graph.outputs):
        if any(not isinstance(size, int) or size < 1 for size in value.shape or ()):
            yield f"{value.name} has a dynamic size"
        expected = "int64" if value.name == "label" else "float32"
        if _type(value) != expected:
            yield f"{value.name} is {_type(value)}, but the harness passes {expected}"


def _one_type(graph: ir.Graph) -> Iterator[str]:
    """Strong typing: no operator converts implicitly, so the floating-point operands of a node have one type."""
    for node in graph:
        types = {_type(value) for value in (*node.inputs, *node.outputs)} & {"float32", "float16"}
        if len(types) > 1 and node.op_type not in ("Cast", "Resize", *_QUANTIZATION):
            yield f"{node.op_type} {node.name} mixes float16 and float32 without a cast"


def _norms(graph: ir.Graph) -> Iterator[str]:
    """Normalizations compute in float32: their sums of squares overflow float16, and the image is black."""
    for node, label in _nodes(graph, *NORMS):
        if (found := _type(node.outputs[0])) != "float32":
            yield f"{label} computes in {found}, which its squares overflow"


def _no_quantization(graph: ir.Graph) -> Iterator[str]:
    for _, label in _nodes(graph, *_QUANTIZATION):
        yield f"{label} is in a graph that is neither int8 nor fp8"


def _product_types(graph: ir.Graph, precision: str) -> Iterator[str]:
    """Products compute in the type of the precision: another type is slow or loses digits unnoticed."""
    expected = "float32" if precision == "fp32" else "float16"
    for node, label in _nodes(graph, *PRODUCTS):
        if _type(node.outputs[0]) != expected:
            yield f"{label} computes in {_type(node.outputs[0])}, not in {expected}"


def _quantize_pairs(form: Format, graph: ir.Graph) -> Iterator[str]:
    for node, label in _nodes(graph, *_QUANTIZATION):
        scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if scale is None or not (np.isfinite(scale).all() and (scale > 0).all()):
            yield f"{label} has no constant positive scale"
        elif scale.dtype != np.float16:
            yield f"{label} has a {scale.dtype} scale, which makes its product compute in float32"
        if zero is None or zero.dtype != form.dtype:
            yield f"{label} does not round to {form.name}"
        elif zero.astype(np.float32).any():
            yield f"{label} has a zero point that is not 0, but TensorRT's quantization is symmetric"
        readers = {use.node.op_type for use in node.outputs[0].uses()}
        if node.op_type == "QuantizeLinear" and readers != {"DequantizeLinear"}:
            yield f"{label} is not followed by DequantizeLinear alone"


def _quantized_products(form: Format, graph: ir.Graph) -> Iterator[str]:
    for node, label in _nodes(graph, *PRODUCTS):
        activation, weight = (value.producer() if value is not None else None for value in node.inputs[:2])
        dequantized = [maker is not None and maker.op_type == "DequantizeLinear" for maker in (activation, weight)]
        if any(dequantized) and not all(dequantized):
            yield f"{label} has only one {form.name} operand, so it computes in float16"
        elif activation is not None and weight is not None and all(dequantized):
            scale = constant(activation.inputs[1])
            if scale is None or scale.size != 1:
                yield f"{label} reads an activation with more than one scale"
            values, scales = constant(weight.inputs[0]), constant(weight.inputs[1])
            axis, channels = weight.attributes.get_int("axis", 1), channel_axis(node)
            if values is None or values.dtype != form.dtype:
                yield f"{label} has a weight that is not a constant in {form.name}"
            elif not form.takes(node):
                yield f"{label} has channels or a filter for which TensorRT has no {form.name} kernel"
            elif axis != channels or scales is None or scales.shape != (values.shape[channels],):
                yield f"{label} has weight scales that are not along its output channels"
