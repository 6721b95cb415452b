"""The evaluator of saved Core ML packages: packages built by coremltools, some with a planted fault."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rdd_edge.errors import ArtifactError
from rdd_edge.targets import load_target
from rdd_edge.targets.base import ExportSpec
from rdd_edge.targets.ios.evaluator import Evaluator, read_package
from rdd_edge.targets.ios.evaluator.operators import OPERATORS
from rdd_edge.targets.ios.runner import EvaluatorRunner
from rdd_edge.targets.ios.silence import import_coremltools, no_bars
from rdd_edge.targets.ranges import HALF_MAX

TARGET: Any = load_target("ios")
SHAPE = (1, 4, 8, 8)
DATA = Path("Data/com.apple.CoreML")


class Net(torch.nn.Module):
    """Two convolutions with a squared activation between them, which leaves float16 where its input is large."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(64, 4, 3, 3, generator=generator) / 6)
        self.second = torch.nn.Parameter(torch.randn(4, 64, 3, 3, generator=generator) / 24)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.silu(F.conv2d(z, self.first, padding=1)), self.second, padding=1)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def build(precision: str) -> Path:
        if precision not in made:
            program = torch.export.export(Net().eval(), (torch.zeros(SHAPE),))
            out = tmp_path_factory.mktemp(precision)
            made[precision] = TARGET.lower(program, ExportSpec(precision, SHAPE, None), out).path
        return made[precision]

    return build


def images(path: Path, z: torch.Tensor) -> torch.Tensor:
    return Evaluator(path).run({"z": z}).outputs["x"]


def psnr(path: Path) -> float:
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = Net()(z)
    return float(10 * torch.log10(4.0 / ((images(path, z) - expected) ** 2).mean()))


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [("fp32", 110, float("inf")), ("fp16", 60, 90), ("w8", 40, 60), ("w6", 30, 50), ("w4", 20, 38)],
)
def test_each_precision_against_torch(packages: Callable[[str], Path], precision: str, low: float, high: float) -> None:
    assert low < psnr(packages(precision)) <= high


def test_results_are_rounded_to_float16(packages: Callable[[str], Path]) -> None:
    seen: dict[str, torch.Tensor] = {}
    evaluator = Evaluator(packages("fp16"))
    result = evaluator.run({"z": torch.randn(SHAPE)}, watch=seen.__setitem__)
    computed = {op.outputs[0].name for op in evaluator.function.operations if op.op_type != "const"}
    assert result.largest.keys() == computed - {"x"}
    for name in result.largest:
        assert torch.equal(seen[name], seen[name].half().float())
        assert float(seen[name].abs().max()) == pytest.approx(result.largest[name], rel=1e-3)


@pytest.mark.parametrize(("precision", "closest"), [("fp32", 1e-5), ("fp16", 4e-3)])
def test_many_images_at_once_are_those_of_single_runs(
    packages: Callable[[str], Path], precision: str, closest: float
) -> None:
    """float16 rounds some sums the other way, because a convolution of many images adds in another order."""
    runner = EvaluatorRunner(packages(precision), 1)
    z = np.random.default_rng(0).standard_normal((5, *SHAPE[1:])).astype(np.float32)
    together = runner.run(z, None)
    single = [runner.run(z[i : i + 1], None) for i in range(5)]
    np.testing.assert_allclose(together, np.concatenate(single), atol=closest)
    largest = [runner.largest(z[i : i + 1], None) for i in range(5)]
    assert runner.largest(z, None) == pytest.approx(
        {name: max(one[name] for one in largest) for name in largest[0]}, rel=1e-3
    )


def tampered(path: Path, to: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a package whose ML program was changed."""
    import coremltools.proto.Model_pb2 as model_pb2

    shutil.copytree(path, to)
    model = model_pb2.Model()
    model.ParseFromString((to / DATA / "model.mlmodel").read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    change(block.operations)
    (to / DATA / "model.mlmodel").write_bytes(model.SerializeToString())
    return to


def blob_offset(path: Path, operator: str, attribute: str) -> int:
    """Where in weight.bin the data of an operation's attribute begin."""
    import coremltools.proto.Model_pb2 as model_pb2

    model = model_pb2.Model()
    model.ParseFromString((path / DATA / "model.mlmodel").read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    stored = [
        op for op in block.operations if op.type == operator and op.attributes[attribute].HasField("blobFileValue")
    ]
    operation = max(stored, key=lambda op: op.attributes[attribute].type.tensorType.rank)  # a weight, not a bias
    record = operation.attributes[attribute].blobFileValue.offset
    content = (path / DATA / "weights/weight.bin").read_bytes()
    return int(np.frombuffer(content, "<u8", 1, record + 16)[0])


def test_planted_overflow_is_found(packages: Callable[[str], Path], tmp_path: Path) -> None:
    """`silu` becomes `square`: over 255 it leaves float16, and the float32 package does not."""

    def square(operations: Any) -> None:
        next(op for op in operations if op.type == "silu").type = "square"

    path = tampered(packages("fp16"), tmp_path / "bad.mlpackage", square)
    assert max(Evaluator(path).run({"z": torch.ones(SHAPE)}).largest.values()) <= HALF_MAX
    z = np.full(SHAPE, 800.0, np.float32)
    result = Evaluator(path).run({"z": torch.from_numpy(z)})
    overflows = [name for name, value in result.largest.items() if value > HALF_MAX]
    assert overflows[0] == "silu_cast_fp16"  # infinity spreads from there
    runner = EvaluatorRunner(path, 1)
    with pytest.raises(ArtifactError, match=r"bad\.mlpackage overflows float16.*silu_cast_fp16 reaches"):
        runner.run(z, None)
    whole = tampered(packages("fp32"), tmp_path / "good.mlpackage", square)
    assert np.isfinite(EvaluatorRunner(whole, 1).run(z, None)).all()


def test_flipped_weight_shows(packages: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "flipped.mlpackage"
    shutil.copytree(packages("fp16"), path)
    file = path / DATA / "weights/weight.bin"
    content = bytearray(file.read_bytes())
    content[blob_offset(path, "const", "val") + 1] ^= 0x80  # the sign of the first weight
    file.write_bytes(content)
    assert psnr(packages("fp16")) > 60
    assert psnr(path) < 45


def test_wrong_scale_shows(packages: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "scaled.mlpackage"
    shutil.copytree(packages("w8"), path)
    file, start = path / DATA / "weights/weight.bin", blob_offset(path, "constexpr_affine_dequantize", "scale")
    content = bytearray(file.read_bytes())
    scale = np.frombuffer(content, "<f2", 1, start).copy()
    content[start : start + 2] = (scale * np.float16(4)).tobytes()
    file.write_bytes(content)
    assert psnr(packages("w8")) > 40
    assert psnr(path) < 35


def test_unknown_operators_are_named(packages: Callable[[str], Path], tmp_path: Path) -> None:
    def rename(operations: Any) -> None:
        next(op for op in operations if op.type == "silu").type = "cumsum"
        next(op for op in operations if op.type == "conv").type = "argsort"

    path = tampered(packages("fp16"), tmp_path / "odd.mlpackage", rename)
    with pytest.raises(ArtifactError, match="operators that the evaluator does not support: argsort, cumsum"):
        Evaluator(path)


@pytest.mark.parametrize(
    ("file", "sentence"), [("model.mlmodel", "truncated or damaged"), ("weights/weight.bin", "weight.bin is truncated")]
)
def test_truncated_files(packages: Callable[[str], Path], tmp_path: Path, file: str, sentence: str) -> None:
    path = tmp_path / "short.mlpackage"
    shutil.copytree(packages("fp16"), path)
    content = (path / DATA / file).read_bytes()
    (path / DATA / file).write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ArtifactError, match=sentence):
        EvaluatorRunner(path, 1).load()


def test_weights_of_another_package(packages: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "mixed.mlpackage"
    shutil.copytree(packages("w4"), path)
    shutil.copy(packages("fp32") / DATA / "weights/weight.bin", path / DATA / "weights/weight.bin")
    with pytest.raises(ArtifactError, match=r"has no array at .* do not belong together"):
        EvaluatorRunner(path, 1).load()


def test_no_package_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a Core ML package: it has no model\.mlmodel"):
        read_package(tmp_path)


def test_label_missing(packages: Callable[[str], Path]) -> None:
    with pytest.raises(ArtifactError, match="takes the inputs z, not z, label"):
        Evaluator(packages("fp16")).run({"z": torch.zeros(SHAPE), "label": torch.zeros(1).long()})


def expanded(tmp_path: Path, ios: int, shape: tuple[int, ...], weight: Callable[[Any], Any]) -> torch.Tensor:
    """A compressed constant, from the package of a program that adds it to its input of that shape.

    weight: makes the constant, given coremltools' builder.
    """
    ct = import_coremltools()
    from coremltools.converters.mil import Builder

    target = getattr(ct.target, f"iOS{ios}")

    @Builder.program(input_specs=[Builder.TensorSpec(shape)], opset_version=target)  # type: ignore[untyped-decorator]
    def program(z: Any) -> Any:
        return Builder.add(x=z, y=weight(Builder), name="x")

    with no_bars():
        model = ct.convert(
            program, minimum_deployment_target=target, compute_precision=ct.precision.FLOAT32, skip_model_load=True
        )
        model.save(str(tmp_path / "by-hand.mlpackage"))
    evaluator = Evaluator(tmp_path / "by-hand.mlpackage")
    assert any(op.op_type.startswith("constexpr") for op in evaluator.function.operations)
    return evaluator.run({"z": torch.zeros(shape)}).outputs["x"]


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_indices_narrower_than_a_byte(tmp_path: Path, bits: int) -> None:
    """Indices of 1, 2, 4 or 6 bits, the first in the lowest bits, into a table."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (1, 37))
    number = sum(int(v) << (bits * i) for i, v in enumerate(values.reshape(-1)))
    packed = np.frombuffer(number.to_bytes(-(-37 * bits // 8), "little"), np.uint8)
    table = np.arange(2**bits, dtype=np.float32) * 3
    shape = np.array(values.shape, np.uint32)
    x = expanded(tmp_path, 17, (1, 37), lambda mb: mb.constexpr_lut_to_dense(indices=packed, lut=table, shape=shape))
    assert x.tolist() == (values * 3).tolist()


def test_compressed_weights_of_ios_18(tmp_path: Path) -> None:
    """coremltools' int4 blocks and grouped tables, against what it says itself that they expand to."""
    ct = import_coremltools()
    coreml = ct.optimize.coreml
    with no_bars():
        model = ct.convert(
            torch.export.export(Net().eval(), (torch.zeros(SHAPE),)).run_decompositions({}),
            inputs=[ct.TensorType(name="z", shape=SHAPE)],
            outputs=[ct.TensorType(name="x")],
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
        )
        block = coreml.OpLinearQuantizerConfig(dtype="int4", granularity="per_block", block_size=16, weight_threshold=0)
        table = coreml.OpPalettizerConfig(
            nbits=4, granularity="per_grouped_channel", group_size=16, weight_threshold=0
        )  # fmt: skip
        blocked = coreml.linear_quantize_weights(model, coreml.OptimizationConfig(block))
        tabled = coreml.palettize_weights(model, coreml.OptimizationConfig(table))
    for name, compressed, operator in (
        ("blocked", blocked, "constexpr_blockwise_shift_scale"), ("tabled", tabled, "constexpr_lut_to_dense"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.mlpackage"
        with no_bars():
            compressed.save(str(path))
        evaluator = Evaluator(path)
        assert evaluator.function.find_ops(op_type=operator)
        assert 15 < psnr(path) < 45
        for convolution in compressed._mil_program.functions["main"].find_ops(op_type="conv"):
            (stored,) = (value for var, value in evaluator.constants.items() if var.name == convolution.weight.name)
            torch.testing.assert_close(stored, torch.from_numpy(_expanded(convolution.weight.op)), rtol=1e-3, atol=1e-4)


def _expanded(operation: Any) -> Any:
    value = operation.val.val if operation.op_type == "const" else operation.materialized_val_inference()
    return np.asarray(value, dtype=np.float32)


def test_blockwise_scale_by_hand(tmp_path: Path) -> None:
    data, offset = np.arange(8, dtype=np.int8).reshape(2, 4), np.array([[0, 2], [4, 6]], np.int8)
    scale = np.array([[1, 10], [2, 20]], np.float32)
    x = expanded(
        tmp_path, 18, (2, 4), lambda mb: mb.constexpr_blockwise_shift_scale(data=data, scale=scale, offset=offset)
    )
    assert x.tolist() == [[0.0, 1.0, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0]]


def test_grouped_table_by_hand(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil.types import nptype_from_builtin, string_to_builtin

    table = np.array([[[0, 1]], [[5, 7]]], np.float32)[..., None]  # (2, 1, 2, 1): a table for each two rows
    bits = nptype_from_builtin(string_to_builtin("uint1"))
    indices = np.array([[0, 1], [1, 1], [0, 1], [1, 0]]).astype(bits)
    x = expanded(tmp_path, 18, (4, 2), lambda mb: mb.constexpr_lut_to_dense(indices=indices, lut=table))
    assert x.tolist() == [[0, 1], [1, 1], [5, 7], [7, 5]]


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_have_the_parameters_of_core_ml(operator: str) -> None:
    """Those that coremltools defines for it, in every version of the operator up to iOS 18."""
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    accepted = inspect.signature(OPERATORS[operator]).parameters
    for version in SSAOpRegistry.core_ops[operator].values():
        assert version.input_spec.input_types.keys() <= accepted.keys()
