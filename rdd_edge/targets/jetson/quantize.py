"""The int8 graph: QuantizeLinear and DequantizeLinear around convolutions and linears, everything else float16.

Symmetric, with zero points 0: one scale per tensor for activations, one per output channel for weights, stored as
int8. Scales are float16, so that the result of a quantized product is float16, without a float32 island around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...graphs.layers import check_keep, layer_names
from ..base import CalibrationSet, ExportSpec, Quantized
from ..ranges import LEVELS, SMALLEST_SCALE, clips
from .graph import Product, add_initializer, constant, convert, products, to_proto
from .half import to_half
from .harness.onnx_runtime import open_session, session_options

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["quantize", "quantize_weight"]


def quantize(
    program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
) -> Quantized:
    """The int8 graph, its activation ranges measured on the float32 graph in ONNX Runtime.

    Arguments and errors are those of Target.quantize.
    """
    names = layer_names(program)
    check_keep(keep, names.values())
    model = convert(program)
    every = products(model, names)
    chosen = [product for product in every if product.layer not in keep]
    tensors = sorted({_name(product.node.inputs[0]) for product in chosen})
    session = _watching(to_proto(model.clone()), tensors)
    clip = clips(partial(_observe, session, tensors), calibration, spec.input_shape[0])
    fraction = sum(p.macs for p in chosen) / max(sum(p.macs for p in every), 1)
    for product in chosen:
        _quantize_weight_of(model, product)
    for name in tensors:
        _quantize_activation(model, [p for p in chosen if _name(p.node.inputs[0]) == name], clip[name])
    return Quantized(to_half(model, ()), fraction, keep)


def _watching(proto: Any, tensors: Sequence[str]) -> Any:
    """A session that has these tensors as outputs."""
    import onnx

    ort: Any = import_or_explain("onnxruntime", "calibration for the jetson target", "jetson")
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    return open_session(ort, proto.SerializeToString(), session_options(ort))


def _observe(
    session: Any, tensors: Sequence[str], z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> Iterable[tuple[str, NDArray[np.float32]]]:
    names = [value.name for value in session.get_inputs()]
    feeds = dict(zip(names, (z, label), strict=False))  # an unconditional graph has no second input
    return zip(tensors, session.run(list(tensors), feeds), strict=True)


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)


def quantize_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 values and one scale per channel of `axis`, such that value · scale ≈ weight.

    The scales are exact in float16, as the file stores them, so that rounding uses the stored values.
    """
    others = tuple(d for d in range(weight.ndim) if d != axis)
    scale = np.abs(weight).max(axis=others) / LEVELS
    scale = np.maximum(scale, SMALLEST_SCALE).astype(np.float16).astype(np.float32)
    spread = scale.reshape([-1 if d == axis else 1 for d in range(weight.ndim)])
    return np.clip(np.round(weight / spread), -LEVELS, LEVELS).astype(np.int8), scale


def _quantize_weight_of(model: ir.Model, product: Product) -> None:
    value = product.node.inputs[1]
    weight = constant(value)
    assert value is not None
    assert weight is not None
    integers, scale = quantize_weight(weight, product.channel_axis)
    name = f"{product.layer}_weight"
    inputs = [
        add_initializer(model, f"{name}_int8", integers),
        add_initializer(model, f"{name}_scale", scale),
        add_initializer(model, f"{name}_zero", np.zeros(len(scale), dtype=np.int8)),
    ]
    output = ir.Value(name=f"{name}_dequantized", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    axis = ir.AttrInt64("axis", product.channel_axis)
    node = ir.Node("", "DequantizeLinear", inputs, [axis], outputs=[output], name=f"dequantize_{name}")
    model.graph.insert_before(product.node, node)
    product.node.replace_input_with(1, output)


def _quantize_activation(model: ir.Model, readers: list[Product], clip: float) -> None:
    """Insert one Q/DQ pair for all the products that read a tensor."""
    value = readers[0].node.inputs[0]
    assert value is not None
    scale_value = np.float32(np.float16(max(clip / LEVELS, SMALLEST_SCALE)))
    scale = add_initializer(model, f"{value.name}_scale", np.asarray(scale_value))
    zero = add_initializer(model, f"{value.name}_zero", np.asarray(0, dtype=np.int8))
    q_out = ir.Value(name=f"{value.name}_int8", shape=value.shape, type=ir.TensorType(ir.DataType.INT8))
    dq_out = ir.Value(name=f"{value.name}_dequantized", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    q = ir.Node("", "QuantizeLinear", [value, scale, zero], outputs=[q_out], name=f"quantize_{value.name}")
    dq = ir.Node("", "DequantizeLinear", [q_out, scale, zero], outputs=[dq_out], name=f"dequantize_{value.name}")
    first = min((reader.node for reader in readers), key=list(model.graph).index)
    model.graph.insert_before(first, [q, dq])
    for reader in readers:
        reader.node.replace_input_with(0, dq_out)
