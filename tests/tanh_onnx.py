"""A bundle of the jetson target whose graph is x = tanh(z), or tanh(z) · label / 10, made without torch."""

from __future__ import annotations

from pathlib import Path

from bundles import write_fake_bundle


def tanh_graph(side: int = 8, classes: int | None = None, label_type: str = "INT64") -> bytes:
    import onnx
    from onnx import TensorProto, helper

    shape = [1, 1, side, side]
    z, x = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("z", "x"))
    if classes is None:
        nodes, inputs, constants = [helper.make_node("Tanh", ["z"], ["x"], name="tanh")], [z], []
    else:
        inputs = [z, helper.make_tensor_value_info("label", getattr(TensorProto, label_type), [1])]
        constants = [helper.make_tensor("ten", TensorProto.FLOAT, [1], [10.0])]
        nodes = [
            helper.make_node("Tanh", ["z"], ["t"], name="tanh"),
            helper.make_node("Cast", ["label"], ["l"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Div", ["l", "ten"], ["share"], name="div"),
            helper.make_node("Mul", ["t", "share"], ["x"], name="mul"),
        ]
    graph = helper.make_graph(nodes, "tanh", inputs, [x], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def write_tanh_bundle(
    parent: Path, name: str = "bundle", side: int = 8, classes: int | None = None, label_type: str = "INT64"
) -> Path:
    content = tanh_graph(side, classes, label_type)
    return write_fake_bundle(parent, name=name, side=side, classes=classes, target="jetson", artifact=content)
