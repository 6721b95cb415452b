"""A float16 graph for a runtime without float16 arithmetic: in float32, with every float16 tensor rounded.

ONNX Runtime's CPU kernels compute float16 nodes in float32, and it removes the casts between them even with its
optimizations disabled. The casts that this module adds stay, if they are disabled.

Sums inside a node are float32. TensorRT fuses nodes, without rounding between them, and may choose kernels that
accumulate in float16 (github.com/NVIDIA/TensorRT, issue 2942): only a board's own images show what it chose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...dependencies import import_or_explain


def rounded(model: Any) -> tuple[Any, list[str]]:
    """A ModelProto in float32, and the names of the tensors that it rounds to float16, in the order of computation."""
    onnx = import_or_explain("onnx", "reading an ONNX graph", "jetson")
    half = onnx.TensorProto.FLOAT16
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    to_round = {value.name for value in inferred if value.type.tensor_type.elem_type == half}
    result = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [new for node in result.graph.node for new in _with_casts(onnx, node, to_round)]
    for field in (result.graph.node, result.graph.value_info):
        del field[:]
    result.graph.node.extend(nodes)
    for tensor in result.graph.initializer:
        _to_single(onnx, tensor)
    return result, [name for node in model.graph.node for name in node.output if name in to_round]


def _with_casts(onnx: Any, node: Any, to_round: set[str]) -> Iterator[Any]:
    """A node in float32, then for each of its outputs that is float16 a cast to float16 and one back."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _to_single(onnx, attribute.t)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
            attribute.i = single
    outputs = list(node.output)
    node.output[:] = [f"{name}_exact" if name in to_round else name for name in outputs]
    yield node
    for name in outputs:
        if name in to_round:
            yield onnx.helper.make_node("Cast", [f"{name}_exact"], [f"{name}_half"], to=half)
            yield onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=single)


def _to_single(onnx: Any, tensor: Any) -> None:
    if tensor.data_type == onnx.TensorProto.FLOAT16:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
