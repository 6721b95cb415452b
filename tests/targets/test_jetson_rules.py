"""Graphs with one planted fault each, which the rule for it must find."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rdd_edge.errors import ArtifactError
from rdd_edge.targets import load_target
from rdd_edge.targets.jetson.formats import FORMATS
from rdd_edge.targets.jetson.rules import broken_rules

TARGET: Any = load_target("jetson")
FILES: dict[str, bytes] = {}


@pytest.fixture
def model(make_case: Callable[..., Any], tmp_path: Path) -> Callable[[str], Any]:
    """model(precision): a fresh ModelProto of the small network."""

    def load(precision: str) -> Any:
        if precision not in FILES:
            case = make_case(TARGET.precision("fp32").rewrites)
            program, spec = case.program, case.spec(precision)
            if TARGET.precision(precision).quantized:
                program = TARGET.quantize(program, spec, case.calibration(4), ())
            FILES[precision] = TARGET.lower(program, spec, tmp_path / precision).path.read_bytes()
        return onnx.ModelProto.FromString(FILES[precision])

    return load


def faults(proto: Any, precision: str, folder: Path) -> tuple[str, ...]:
    path = folder / "planted.onnx"
    onnx.save(proto, path)
    return broken_rules(path, precision)


def first(proto: Any, operator: str) -> Any:
    return next(node for node in proto.graph.node if node.op_type == operator)


def constant(proto: Any, name: str) -> Any:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def replace(proto: Any, name: str, array: Any) -> None:
    constant(proto, name).CopyFrom(numpy_helper.from_array(array, name))


@pytest.mark.parametrize("precision", [precision.name for precision in TARGET.precisions])
def test_what_we_export_breaks_none(model: Callable[[str], Any], tmp_path: Path, precision: str) -> None:
    assert faults(model(precision), precision, tmp_path) == ()


def newer_opset(proto: Any) -> None:
    proto.opset_import[0].version = 22


def unknown_operator(proto: Any) -> None:
    first(proto, "Sigmoid").op_type = "Softsign"


def dynamic_batch(proto: Any) -> None:
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    del proto.graph.value_info[:]


def zero_point(proto: Any) -> None:
    name = first(proto, "QuantizeLinear").input[2]
    replace(proto, name, np.asarray(3, np.int8))


def negative_scale(proto: Any) -> None:
    name = first(proto, "QuantizeLinear").input[1]
    replace(proto, name, -numpy_helper.to_array(constant(proto, name)))


def weight_without_scales(proto: Any) -> None:
    """One scale for the whole weight."""
    node = next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and "weight" in n.input[0])
    replace(proto, node.input[1], np.asarray(0.01, np.float16))
    replace(proto, node.input[2], numpy_helper.to_array(constant(proto, node.input[2]))[0])
    del proto.graph.value_info[:]


def unquantized_input(proto: Any) -> None:
    made_by = {name: node for node in proto.graph.node for name in node.output}
    pairs = ((node, made_by[node.input[0]]) for node in proto.graph.node if node.op_type == "Conv")
    convolution, dequantized = next(pair for pair in pairs if pair[1].op_type == "DequantizeLinear")
    convolution.input[0] = made_by[dequantized.input[0]].input[0]


def norm_in_float16(proto: Any) -> None:
    """A normalization without the cast before it."""
    norm = first(proto, "InstanceNormalization")
    cast = next(node for node in proto.graph.node if norm.input[0] in node.output)
    norm.input[0] = cast.input[0]
    for index in (1, 2):
        array = numpy_helper.to_array(constant(proto, norm.input[index])).astype(np.float16)
        proto.graph.initializer.append(numpy_helper.from_array(array, f"half_{index}"))
        norm.input[index] = f"half_{index}"
    del proto.graph.value_info[:]


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (norm_in_float16, r"InstanceNormalization .* computes in float16, which its squares overflow"),
        (newer_opset, r"its opset is 22"),
        (unknown_operator, r"TensorRT has no operator Softsign"),
        (dynamic_batch, r"z has a dynamic size"),
        (zero_point, r"QuantizeLinear .* has a zero point that is not 0"),
        (negative_scale, r"QuantizeLinear .* has no constant positive scale"),
        (weight_without_scales, r"Conv .* has weight scales that are not along its output channels"),
        (unquantized_input, r"Conv .* has only one int8 operand"),
    ],
)
def test_planted_fault_is_named(
    model: Callable[[str], Any], tmp_path: Path, plant: Callable[[Any], None], sentence: str
) -> None:
    proto = model("int8")
    plant(proto)
    assert any(re.search(sentence, fault) for fault in faults(proto, "int8", tmp_path))


def int8_zero_point(proto: Any) -> None:
    replace(proto, first(proto, "QuantizeLinear").input[2], np.asarray(0, np.int8))
    del proto.graph.value_info[:]


def fp8_weight(proto: Any) -> Any:
    return next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0].endswith("weight_fp8"))


def int8_weight(proto: Any) -> None:
    node = fp8_weight(proto)
    for name in (node.input[0], node.input[2]):
        replace(proto, name, numpy_helper.to_array(constant(proto, name)).astype(np.int8))
    del proto.graph.value_info[:]


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (int8_zero_point, r"QuantizeLinear .* does not round to fp8"),
        (int8_weight, r"Conv .* has a weight that is not a constant in fp8"),
        (weight_without_scales, r"Conv .* has weight scales that are not along its output channels"),
        (unquantized_input, r"Conv .* has only one fp8 operand"),
        (norm_in_float16, r"InstanceNormalization .* computes in float16, which its squares overflow"),
    ],
)
def test_planted_fault_of_fp8_is_named(
    model: Callable[[str], Any], tmp_path: Path, plant: Callable[[Any], None], sentence: str
) -> None:
    proto = model("fp8")
    plant(proto)
    assert any(re.search(sentence, fault) for fault in faults(proto, "fp8", tmp_path))


def test_fp8_in_layers_that_no_kernel_takes(
    make_case: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    with monkeypatch.context() as patched:
        patched.setitem(FORMATS, "fp8", dataclasses.replace(FORMATS["fp8"], takes=lambda product: True))
        program = TARGET.quantize(case.program, case.spec("fp8"), case.calibration(4), ())
    path = TARGET.lower(program, case.spec("fp8"), tmp_path).path
    found = broken_rules(path, "fp8")
    assert len(found) == 2  # the first and the last convolution
    assert all("has channels or a filter for which TensorRT has no fp8 kernel" in fault for fault in found)


def test_float32_island_around_a_quantized_convolution(model: Callable[[str], Any], tmp_path: Path) -> None:
    """A float32 scale: the output of DequantizeLinear is float32, and so is that of the convolution."""
    proto = onnx.ModelProto()
    weight = np.ones((4, 4, 1, 1), np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["z", "s", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["dq"], name="dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wzero"], ["dw"], name="dw", axis=0),
        helper.make_node("Conv", ["dq", "dw"], ["x"], name="conv"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("z", "x")]
    constants = {
        "s": np.asarray(0.1, np.float32), "zero": np.asarray(0, np.int8), "w": weight,
        "ws": np.ones(4, np.float32), "wzero": np.zeros(4, np.int8),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "island", values[:1], values[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    found = faults(proto, "int8", tmp_path)
    assert any("makes its product compute in float32" in fault for fault in found)
    assert any("Conv conv computes in float32, not in float16" in fault for fault in found)


def test_fp32_file_under_the_name_of_another_precision(model: Callable[[str], Any], tmp_path: Path) -> None:
    assert any("computes in float32, not in float16" in fault for fault in faults(model("fp32"), "fp16", tmp_path))
    assert any(
        "is in a graph that is neither int8 nor fp8" in fault for fault in faults(model("int8"), "fp16", tmp_path)
    )


def test_damaged_file(tmp_path: Path, model: Callable[[str], Any]) -> None:
    path = tmp_path / "planted.onnx"
    path.write_bytes(model("fp32").SerializeToString()[:5000])
    with pytest.raises(ArtifactError, match=r"planted\.onnx is not a valid ONNX graph"):
        broken_rules(path, "fp32")
