"""float32 → float16 in the graph itself, as a strongly typed TensorRT network requires.

Weights, activations and the scales of Q/DQ become float16. The graph's inputs and outputs stay float32, and so do
normalizations, between casts: a group's sum of squares overflows float16 long before an activation does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...errors import ExportError
from ..ranges import HALF_MAX, magnitude
from .graph import add_initializer, constant, new_node

NORMS = ("InstanceNormalization", "LayerNormalization")

# Inputs that an operator's definition requires in float32: sizes, not activations.
_ALWAYS_FLOAT32 = {"Resize": (1, 2)}


def to_half(model: ir.Model) -> ir.Model:
    """Change the model in place. Raises ExportError where a weight overflows float16."""
    in_float32 = [node for node in model.graph if node.op_type in NORMS]
    in_float16 = [node for node in model.graph if node.op_type not in NORMS]
    for node in in_float16:
        _constants_to_half(model, node)
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            first = min((use.node for use in value.uses()), key=list(model.graph).index)
            cast = _cast_uses(value, ir.DataType.FLOAT16)
            model.graph.insert_before(first, cast)
    for node in in_float32:
        for index, operand in enumerate(node.inputs):
            if operand is not None and operand.dtype == ir.DataType.FLOAT16 and not operand.is_initializer():
                cast = _cast(operand, ir.DataType.FLOAT)
                model.graph.insert_before(node, cast)
                node.replace_input_with(index, cast.outputs[0])
        for value in node.outputs:
            model.graph.insert_after(node, _cast_uses(value, ir.DataType.FLOAT16))
    for index, value in enumerate(model.graph.outputs):
        if value.dtype == ir.DataType.FLOAT16:
            producer, name = value.producer(), value.name
            assert producer is not None
            value.name = f"{name}_fp16"
            cast = _cast(value, ir.DataType.FLOAT)
            cast.outputs[0].name = name
            model.graph.insert_after(producer, cast)
            model.graph.outputs[index] = cast.outputs[0]
    return model


def _constants_to_half(model: ir.Model, node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        array = constant(value)
        required = index in _ALWAYS_FLOAT32.get(node.op_type, ())
        if required or value is None or array is None or array.dtype != np.float32:
            continue
        name = f"{value.name}_fp16"
        if name not in model.graph.initializers:
            if (largest := magnitude(array)) > HALF_MAX:
                raise ExportError(f"{value.name} reaches {largest:g}, over float16's {HALF_MAX:g}: export it as fp32")
            add_initializer(model, name, array.astype(np.float16))
        node.replace_input_with(index, model.graph.initializers[name])


def _cast_uses(value: ir.Value, to: ir.DataType) -> ir.Node:
    """A cast of `value`, not in the graph yet, that replaces it as the input of every node."""
    uses = list(value.uses())
    cast = _cast(value, to)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])
    return cast


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    name = f"{value.name}_{'fp32' if to == ir.DataType.FLOAT else 'fp16'}"
    return new_node("Cast", f"cast_{name}", [value], name, to, [ir.AttrInt64("to", int(to))])
