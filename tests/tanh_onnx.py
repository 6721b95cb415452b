"""A bundle of the jetson target whose graph is x = tanh(z), made without torch."""

from __future__ import annotations

from pathlib import Path

from bundles import write_fake_bundle


def write_tanh_bundle(parent: Path, name: str = "bundle", side: int = 8) -> Path:
    import onnx

    shape = [1, 1, side, side]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("z", "x")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Tanh", ["z"], ["x"])], "tanh", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    return write_fake_bundle(parent, name=name, side=side, target="jetson", artifact=model.SerializeToString())
