"""The int8 and fp8 graphs: QuantizeLinear and DequantizeLinear around products, the rest as in fp16.

Symmetric, with zero points 0: one scale per tensor for activations, one per output channel for weights, stored in 8
bits. Scales are float16, so that the result of a quantized product is float16, without float32 nodes around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...graphs.cleanup import graph_of
from ...graphs.layers import layers, without
from ..base import CalibrationSet, ExportSpec, Quantized
from ..ranges import SMALLEST_SCALE
from .formats import FORMATS, Format
from .graph import add_initializer, channel_axis, constant, convert, new_node, products, to_proto
from .half import to_half
from .harness.onnx_runtime import open_session, session_options

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def quantize(
    program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
) -> Quantized:
    """The quantized graph, its activation ranges measured on the float32 graph in ONNX Runtime.

    Arguments and errors are those of Target.quantize. Layers that TensorRT has no fp8 kernels for are kept as well.
    """
    form = FORMATS[spec.precision]
    model = convert(program)
    every = products(model, layers(graph_of(program)))
    keep = (*keep, *(layer.name for layer, node in every if layer.name not in keep and not form.takes(node)))
    _, fraction = without([layer for layer, _ in every], keep)
    chosen = [(layer.name, node) for layer, node in every if layer.name not in keep]
    readers: dict[str, list[ir.Node]] = {}  # of each tensor that is rounded
    for _, node in chosen:
        readers.setdefault(node.inputs[0].name, []).append(node)  # type: ignore[union-attr,arg-type]
    tensors = sorted(readers)
    clip = form.clips(_observer(model.clone(), tensors), calibration, spec.input_shape[0])
    for name, node in chosen:
        _quantize_weight_of(model, name, node, form)
    for name in tensors:
        _quantize_activation(model, readers[name], clip[name], form)
    return Quantized(to_half(model), fraction, keep)


def _observer(model: ir.Model, tensors: list[str]) -> Callable[..., Iterable[tuple[str, NDArray[np.float32]]]]:
    """A function from z [, label] to the name and the value of each of these tensors, in ONNX Runtime."""
    import onnx

    ort: Any = import_or_explain("onnxruntime", "calibration for the jetson target", "jetson")
    proto = to_proto(model)
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    session = open_session(ort, proto.SerializeToString(), session_options(ort))
    names = [value.name for value in session.get_inputs()]

    def observe(*inputs: NDArray[Any]) -> Iterable[tuple[str, NDArray[np.float32]]]:
        return zip(tensors, session.run(tensors, dict(zip(names, inputs, strict=True))), strict=True)

    return observe


def quantize_weight(weight: NDArray[np.float32], axis: int, form: Format) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """8-bit values and one scale per channel of `axis`, such that value · scale ≈ weight.

    The scales are exact in float16, as the file stores them, so that rounding uses the stored values.
    """
    others = tuple(d for d in range(weight.ndim) if d != axis)
    scale = np.abs(weight).max(axis=others) / form.largest
    scale = np.maximum(scale, SMALLEST_SCALE).astype(np.float16).astype(np.float32)
    spread = scale.reshape([-1 if d == axis else 1 for d in range(weight.ndim)])
    return form.rounded(np.clip(weight / spread, -form.largest, form.largest)), scale


def _quantize_weight_of(model: ir.Model, layer: str, product: ir.Node, form: Format) -> None:
    weight, axis = constant(product.inputs[1]), channel_axis(product)
    assert weight is not None
    values, scale = quantize_weight(weight, axis, form)
    name = f"{layer}_weight"
    inputs = [
        add_initializer(model, f"{name}_{form.name}", values),
        add_initializer(model, f"{name}_scale", scale),
        add_initializer(model, f"{name}_zero", np.zeros(len(scale), dtype=form.dtype)),
    ]
    node = _dequantize(name, inputs, [ir.AttrInt64("axis", axis)])
    model.graph.insert_before(product, node)
    product.replace_input_with(1, node.outputs[0])


def _quantize_activation(model: ir.Model, readers: list[ir.Node], clip: float, form: Format) -> None:
    """Insert one Q/DQ pair for all the products that read a tensor."""
    value = readers[0].inputs[0]
    assert value is not None
    scale_value = np.float32(np.float16(max(clip / form.largest, SMALLEST_SCALE)))
    scale = add_initializer(model, f"{value.name}_scale", np.asarray(scale_value))
    zero = add_initializer(model, f"{value.name}_zero", np.asarray(0, dtype=form.dtype))
    inputs, quantized = [value, scale, zero], ir.DataType.from_numpy(np.dtype(form.dtype))
    q = new_node("QuantizeLinear", f"quantize_{value.name}", inputs, f"{value.name}_{form.name}", quantized, [])
    dq = _dequantize(str(value.name), [q.outputs[0], scale, zero], [])
    model.graph.insert_before(min(readers, key=list(model.graph).index), [q, dq])
    for reader in readers:
        reader.replace_input_with(0, dq.outputs[0])


def _dequantize(name: str, inputs: list[ir.Value], attributes: list[ir.Attr]) -> ir.Node:
    output = f"{name}_dequantized"
    return new_node("DequantizeLinear", f"dequantize_{name}", inputs, output, ir.DataType.FLOAT, attributes)
