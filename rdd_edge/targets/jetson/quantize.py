"""The int8 graph: QuantizeLinear and DequantizeLinear around convolutions and linears, everything else float16.

Symmetric, zero points 0: activations one scale per tensor, weights one per output channel and stored as int8. Scales
are float16, so that what leaves a quantized product is float16 and no float32 island forms around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...graphs.layers import check_keep, layer_names
from ..base import CalibrationSet, ExportSpec, Quantized
from ..observers import LEVELS, Threshold, batches, histograms, least_squares
from .graph import Product, add_initializer, constant, convert, products, to_proto
from .half import to_half
from .harness.onnx_runtime import open_session, session_options

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["quantize", "quantize_weight"]

_SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)  # below it float16 loses digits


def quantize(
    program: ExportedProgram,
    spec: ExportSpec,
    calibration: CalibrationSet,
    keep: tuple[str, ...],
    threshold: Threshold = least_squares,
) -> Quantized:
    """The program with every product but those of `keep` in int8.

    calibration: at least one batch of spec.input_shape[0] samples.  keep: the program's names of layers.
    Raises UsageError for a layer that the program does not have.
    """
    names = layer_names(program)
    check_keep(keep, names.values())
    model = convert(program)
    every = products(model, names)
    chosen = [product for product in every if product.layer not in keep]
    tensors = sorted({_name(product.node.inputs[0]) for product in chosen})
    session = _watching(to_proto(model.clone()), tensors)
    found = histograms(partial(_observe, session, tensors, calibration, spec.input_shape[0]))
    clips = {name: threshold(*found[name]) for name in tensors}
    share = sum(p.macs for p in chosen) / max(sum(p.macs for p in every), 1)
    for product in chosen:
        _quantize_weight_of(model, product)
    for name in tensors:
        _quantize_activation(model, [p for p in chosen if _name(p.node.inputs[0]) == name], clips[name])
    return Quantized(to_half(model, ()), share, keep)


def _watching(proto: Any, tensors: Sequence[str]) -> Any:
    """A session that gives these tensors out. The graph's own outputs need no adding."""
    import onnx

    ort: Any = import_or_explain("onnxruntime", "calibration for the jetson target", "jetson")
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    return open_session(ort, proto.SerializeToString(), session_options(ort))


def _observe(
    session: Any, tensors: Sequence[str], calibration: CalibrationSet, batch: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    names = [value.name for value in session.get_inputs()]
    for z, label in batches(calibration, batch):
        feeds = dict(zip(names, (z, label), strict=False))  # an unconditional graph has no second input
        yield from zip(tensors, session.run(list(tensors), feeds), strict=True)


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)


def quantize_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 values and one scale per channel of `axis`, such that value · scale ≈ weight.

    The scales are numbers that float16 holds exactly: the file stores them so, and the rounding must see them so.
    """
    others = tuple(d for d in range(weight.ndim) if d != axis)
    scale = np.abs(weight).max(axis=others) / LEVELS
    scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float16).astype(np.float32)
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
    """One Q/DQ pair for all the products that read a tensor."""
    value = readers[0].node.inputs[0]
    assert value is not None
    scale_value = np.float32(np.float16(max(clip / LEVELS, _SMALLEST_SCALE)))
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
