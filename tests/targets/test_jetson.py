from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rdd_edge.errors import ArtifactError, ExportError, UsageError
from rdd_edge.targets import load_target
from rdd_edge.targets.jetson.runner import OnnxRunner

TARGET: Any = load_target("jetson")


LOWERED: dict[tuple[Any, ...], tuple[Any, bytes]] = {}


def lowered(case: Any, precision: str, out: Path, keep: tuple[str, ...] = ()) -> Any:
    """The artifact in the folder `out`; its bytes are made once a session."""
    key = (id(case), precision, keep)  # a case lives as long as the session
    if key not in LOWERED:
        artifact = built(case, precision, out, keep)
        LOWERED[key] = artifact, artifact.path.read_bytes()
    artifact, content = LOWERED[key]
    out.mkdir(exist_ok=True)
    (out / "model.onnx").write_bytes(content)
    return replace(artifact, path=out / "model.onnx")


def built(case: Any, precision: str, out: Path, keep: tuple[str, ...] = ()) -> Any:
    spec = case.spec(precision)
    program = case.program
    if TARGET.precision(precision).quantized:
        program = TARGET.quantize(program, spec, case.calibration(), keep)
    return TARGET.lower(program, spec, out)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def types_of(path: Path) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize(("precision", "least"), [("fp32", 100.0), ("fp16", 55.0), ("int8", 35.0), ("fp8", 30.0)])
def test_parity_of_the_file(make_case: Callable[..., Any], tmp_path: Path, precision: str, least: float) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    artifact = lowered(case, precision, tmp_path)
    assert case.psnr(TARGET.runner(artifact.path, case.spec(precision), 1)) >= least
    assert artifact.tool_versions["onnx"] == onnx.__version__


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_label_of_a_conditional_network(make_case: Callable[..., Any], tmp_path: Path, precision: str) -> None:
    case = make_case(TARGET.precision("fp32").rewrites, num_class_embeds=10, seed=1)
    artifact = lowered(case, precision, tmp_path)
    graph = onnx.load(artifact.path).graph
    assert [(v.name, v.type.tensor_type.elem_type) for v in graph.input] == [
        ("z", TensorProto.FLOAT), ("label", TensorProto.INT64),
    ]  # fmt: skip
    assert case.psnr(TARGET.runner(artifact.path, case.spec(precision), 1)) >= TARGET.precision(precision).parity_db


def test_time_is_folded_and_nothing_is_left_of_it(make_case: Callable[..., Any], tmp_path: Path) -> None:
    found = operators(lowered(make_case(TARGET.precision("fp32").rewrites), "fp32", tmp_path).path)
    assert not {"Sin", "Cos", "Gemm", "Identity", "Cast", "Shape", "Gather"} & set(found)
    unfolded = operators(lowered(make_case(()), "fp32", tmp_path / "unfolded").path)
    assert "Gemm" in unfolded  # the time MLP, so the check above can fail


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_interface_is_float32_at_opset_20(make_case: Callable[..., Any], tmp_path: Path, precision: str) -> None:
    model = onnx.load(lowered(make_case(TARGET.precision("fp32").rewrites), precision, tmp_path).path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    (z,), (x,) = model.graph.input, model.graph.output
    for value, name in ((z, "z"), (x, "x")):
        assert (value.name, value.type.tensor_type.elem_type) == (name, TensorProto.FLOAT)
        assert [d.dim_value for d in value.type.tensor_type.shape.dim] == [1, 1, 8, 8]


def test_file_names_no_path_of_this_machine(make_case: Callable[..., Any], tmp_path: Path) -> None:
    content = lowered(make_case(TARGET.precision("fp32").rewrites), "fp32", tmp_path).path.read_bytes()
    assert b"/home" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_same_bytes_from_the_same_program(make_case: Callable[..., Any], tmp_path: Path) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    first, second = (built(case, "int8", tmp_path / name).path.read_bytes() for name in ("a", "b"))
    assert first == second


def test_fp16_keeps_norms_in_float32_and_products_in_float16(make_case: Callable[..., Any], tmp_path: Path) -> None:
    path = lowered(make_case(TARGET.precision("fp32").rewrites), "fp16", tmp_path).path
    types, nodes = types_of(path), onnx.load(path).graph.node
    norms = [node for node in nodes if node.op_type == "InstanceNormalization"]
    assert norms
    assert all(types[name] == TensorProto.FLOAT for node in norms for name in [*node.input, *node.output])
    products = [node for node in nodes if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert all(types[name] == TensorProto.FLOAT16 for node in products for name in [*node.input, *node.output])


def test_fp16_refuses_a_weight_beyond_its_range(make_case: Callable[..., Any], tmp_path: Path) -> None:
    from networks import small_unet

    from rdd_edge.exporting.program import export_program

    model = small_unet()
    model.conv_in.weight.data[0, 0, 0, 0] = 7e4
    case = make_case(TARGET.precision("fp32").rewrites)
    program = export_program(model, case.shape, None)
    with pytest.raises(ExportError, match=r"conv_in.*70000.*fp16|conv_in.*70000.*float16"):
        TARGET.lower(program, case.spec("fp16"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_int8_rounds_every_product_symmetrically(make_case: Callable[..., Any], tmp_path: Path) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    path = lowered(case, "int8", tmp_path).path
    graph, types = onnx.load(path).graph, types_of(path)
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [n for n in graph.node if n.op_type == "Conv" or (n.op_type == "MatMul" and _reads_weight(n, made_by))]
    assert len([n for n in products if n.op_type == "MatMul"]) >= 4  # q, k, v, out
    for node in products:
        activation, weight = made_by[node.input[0]], made_by[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert constants[activation.input[1]].shape == ()
        out_channels = constants[weight.input[0]].shape[0 if node.op_type == "Conv" else -1]
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].shape == (out_channels,)
        assert not constants[activation.input[2]].any()
        assert not constants[weight.input[2]].any()
        assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}


def _reads_weight(node: Any, made_by: dict[str, Any]) -> bool:
    return node.input[1] in made_by and made_by[node.input[1]].op_type == "DequantizeLinear"


def test_int8_weights_are_the_rounded_weights(make_case: Callable[..., Any], tmp_path: Path) -> None:
    from networks import small_unet

    weight = small_unet().conv_in.weight.detach().numpy()
    path = lowered(make_case(TARGET.precision("fp32").rewrites), "int8", tmp_path).path
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    integers = constants["conv_in_weight_int8"].astype(np.float32)
    scale = next(v for k, v in constants.items() if k.startswith("conv_in_weight_scale")).astype(np.float32)
    assert np.abs(integers).max() == 127
    np.testing.assert_array_less(np.abs(integers * scale[:, None, None, None] - weight), 0.51 * scale.max())


def test_fp8_weights_are_the_weights_rounded_by_torch(make_case: Callable[..., Any], tmp_path: Path) -> None:
    import torch
    from networks import small_unet

    weight = small_unet().mid_block.resnets[0].conv1.weight.detach()
    graph = onnx.load(lowered(make_case(TARGET.precision("fp32").rewrites), "fp8", tmp_path).path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    stored = constants["mid_block.resnets.0.conv1_weight_fp8"]
    assert stored.data_type == TensorProto.FLOAT8E4M3FN
    node = next(node for node in graph.node if node.input[0] == stored.name)
    scale = torch.from_numpy(numpy_helper.to_array(constants[node.input[1]]).astype(np.float32))[:, None, None, None]
    torch.testing.assert_close(scale.squeeze(), weight.abs().amax((1, 2, 3)) / 448, rtol=1e-3, atol=0)
    expected = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(np.float32), expected)


def test_fp8_leaves_out_what_tensorrt_has_no_kernels_for(make_case: Callable[..., Any], tmp_path: Path) -> None:
    """The first and the last convolution have one channel on one side."""
    case = make_case(TARGET.precision("fp32").rewrites)
    quantized = TARGET.quantize(case.program, case.spec("fp8"), case.calibration(4), ("mid_block.resnets.0.conv1",))
    assert quantized.keep == ("mid_block.resnets.0.conv1", "conv_in", "conv_out")
    assert quantized.int8_macs_fraction == pytest.approx(case.share_without(*quantized.keep))
    every = make_case(TARGET.precision("fp32").rewrites)
    assert TARGET.quantize(every.program, every.spec("int8"), every.calibration(4), ()).keep == ()


def test_fp8_rounds_as_the_reference_evaluator(tmp_path: Path) -> None:
    """Q/DQ of float16 with a float16 scale, beyond the largest value and among the subnormals too."""
    from onnx.reference import ReferenceEvaluator

    scale = numpy_helper.from_array(np.asarray(2.0**-7, np.float16), "scale")  # division by it is exact
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [
        helper.make_node("Cast", ["z"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["h", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Cast", ["d"], ["x"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, 4096]) for name in ("z", "x")]
    graph = helper.make_graph(nodes, "fp8", values[:1], values[1:], [scale, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    z = np.geomspace(1e-6, 10, 4096, dtype=np.float32).reshape(1, 1, 1, 4096)
    (expected,) = ReferenceEvaluator(model).run(None, {"z": z})
    assert expected.max() == 448 / 128
    np.testing.assert_array_equal(OnnxRunner(tmp_path / "m.onnx", 1).sample(z, None), expected)


def test_keep_leaves_a_layer_in_float16(make_case: Callable[..., Any], tmp_path: Path) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    quantized = TARGET.quantize(case.program, case.spec("int8"), case.calibration(), ("conv_in", "conv_out"))
    assert quantized.keep == ("conv_in", "conv_out")
    assert quantized.int8_macs_fraction == pytest.approx(case.share_without("conv_in", "conv_out"))
    assert quantized.int8_macs_fraction < 1
    graph = onnx.load(TARGET.lower(quantized, case.spec("int8"), tmp_path).path).graph
    assert not any(
        tensor.name.startswith(("conv_in_weight_int8", "conv_out_weight_int8")) for tensor in graph.initializer
    )
    with pytest.raises(UsageError, match="conv_nowhere"):
        TARGET.quantize(case.program, case.spec("int8"), case.calibration(), ("conv_nowhere",))


def test_calibration_smaller_than_a_batch(make_case: Callable[..., Any]) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    with pytest.raises(UsageError, match="calibration set of 0 samples"):
        TARGET.quantize(case.program, case.spec("int8"), case.calibration(0), ())


def test_runner_names_a_broken_file(tmp_path: Path, make_case: Callable[..., Any]) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    path = lowered(case, "fp32", tmp_path).path
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"cannot load .*model\.onnx"):
        TARGET.runner(path, case.spec("fp32"), 1).load()


@pytest.mark.parametrize("precision", ["fp16", "int8"])  # float8 cannot cross a session
def test_samples_are_those_of_nodes_run_one_by_one(
    make_case: Callable[..., Any], tmp_path: Path, precision: str
) -> None:
    """Each node in a session of its own takes and gives real float16, which a session of all of them does not."""
    if precision == "int8" and sys.version_info < (3, 11):
        pytest.skip(
            "onnxruntime 1.23.2, the last for Python 3.10, rounds half of QuantizeLinear's float16 values wrongly"
        )
    case = make_case(TARGET.precision("fp32").rewrites)
    path = lowered(case, precision, tmp_path).path
    runner, one_by_one = OnnxRunner(path, 1), nodes_one_by_one(onnx.load(path))
    for z in (case.z[:1], case.z[1:2]):
        np.testing.assert_array_equal(runner.sample(z, None), one_by_one(z))
    assert np.abs(runner.run(z, None) - one_by_one(z)).max() > 1e-5


def nodes_one_by_one(model: Any) -> Callable[[Any], Any]:
    """The image of z, with each node run alone."""
    import onnxruntime

    model = onnx.shape_inference.infer_shapes(model)
    graph, options = model.graph, onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    types = {value.name: value for value in [*graph.value_info, *graph.input, *graph.output]}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    sessions = []
    for node in graph.node:
        names = dict.fromkeys(filter(None, node.input))
        inputs, held = [types[n] for n in names if n not in constants], [constants[n] for n in names if n in constants]
        alone = helper.make_graph([node], "alone", inputs, [types[name] for name in node.output], held)
        content = helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
        session = onnxruntime.InferenceSession(content.SerializeToString(), options, ["CPUExecutionProvider"])
        sessions.append((node, session))

    def image(z: Any) -> Any:
        values = {"z": z}
        for node, session in sessions:
            feeds = {value.name: values[value.name] for value in session.get_inputs()}
            values.update(zip(node.output, session.run(None, feeds), strict=True))
        return values["x"]

    return image


def test_overflow_that_onnx_runtime_hides(tmp_path: Path) -> None:
    """1000 · 100 leaves float16, and the image, 0.001 times that, does not show it."""
    constants = {"w": np.full((1, 1, 1, 1), 1000, np.float16), "k": np.asarray(1e-3, np.float16)}
    nodes = [
        helper.make_node("Cast", ["z"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["c"]),
        helper.make_node("Mul", ["c", "k"], ["m"]),
        helper.make_node("Cast", ["m"], ["x"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8]) for name in ("z", "x")]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "hidden", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    runner = OnnxRunner(tmp_path / "m.onnx", 1)
    z = np.full((1, 1, 8, 8), 100, np.float32)
    assert np.isfinite(runner.run(z, None)).all()
    assert not np.isfinite(runner.sample(z, None)).any()
    with pytest.raises(ArtifactError, match=r"m\.onnx overflows float16.*: c reaches inf"):
        runner.largest(z, None)
    assert runner.largest(z / 10, None)["c"] == 10_000
