"""float32 → float16 in the graph itself, as a strongly typed TensorRT network requires.

Weights, activations and the scales of Q/DQ become float16. The graph's inputs and outputs stay float32, and so do the
nodes of the operators in `keep_float32`, between casts.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from ...errors import ExportError
from ..ranges import HALF_MAX
from .graph import add_initializer, constant

__all__ = ["to_half"]

# Inputs that an operator's definition requires in float32: sizes, not activations.
_ALWAYS_FLOAT32 = {"Resize": (1, 2)}


def to_half(model: ir.Model, keep_float32: Collection[str]) -> ir.Model:
    """Change the model in place. Raises ExportError where a weight has no float16 value."""
    islands = [node for node in model.graph if node.op_type in keep_float32]
    outside = [node for node in model.graph if node.op_type not in keep_float32]
    for node in outside:
        _constants_to_half(model, node)
    graph_inputs = {value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT}
    for node in outside:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    for value in graph_inputs:
        _cast_uses(model, value, ir.DataType.FLOAT16)
    for node in islands:
        _cast_island(model, node)
    for index, value in enumerate(model.graph.outputs):
        _cast_output(model, index, value)
    return model


def _constants_to_half(model: ir.Model, node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if value is None or array is None or array.dtype != np.float32:
            continue
        if index not in _ALWAYS_FLOAT32.get(node.op_type, ()):
            node.replace_input_with(index, _half_constant(model, value))


def _half_constant(model: ir.Model, value: ir.Value) -> ir.Value:
    name, array = f"{value.name}_fp16", constant(value)
    if name in model.graph.initializers:
        return model.graph.initializers[name]
    assert array is not None
    largest = float(np.abs(array).max(initial=0.0))
    if not largest <= HALF_MAX:
        raise ExportError(f"{value.name} reaches {largest:g}, above float16's {HALF_MAX:g}: export it as fp32")
    return add_initializer(model, name, array.astype(np.float16))


def _cast_uses(model: ir.Model, value: ir.Value, to: ir.DataType) -> None:
    """Insert a cast between `value` and every node that reads it."""
    uses = list(value.uses())
    cast = _cast(value, to)
    model.graph.insert_before(min((use.node for use in uses), key=list(model.graph).index), cast)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])


def _cast_island(model: ir.Model, node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == ir.DataType.FLOAT16 and not value.is_initializer():
            cast = _cast(value, ir.DataType.FLOAT)
            model.graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for value in node.outputs:
        uses = list(value.uses())
        cast = _cast(value, ir.DataType.FLOAT16)
        model.graph.insert_after(node, cast)
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])


def _cast_output(model: ir.Model, index: int, value: ir.Value) -> None:
    if value.dtype != ir.DataType.FLOAT16:
        return
    name, producer = value.name, value.producer()
    assert producer is not None
    value.name = f"{name}_fp16"
    cast = _cast(value, ir.DataType.FLOAT)
    cast.outputs[0].name = name
    model.graph.insert_after(producer, cast)
    model.graph.outputs[index] = cast.outputs[0]


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    name = f"{value.name}_{'fp32' if to == ir.DataType.FLOAT else 'fp16'}"
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(to))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(to))], outputs=[output], name=f"cast_{name}")
