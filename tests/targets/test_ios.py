from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import loud, small_unet

from rdd_edge.errors import ArtifactError, ExportError, UsageError
from rdd_edge.exporting.program import export_program
from rdd_edge.exporting.rewrites import apply_rewrites
from rdd_edge.portable.psnr import psnr_per_image
from rdd_edge.targets import load_target
from rdd_edge.targets.ios.convert import convert
from rdd_edge.targets.ios.evaluator import Evaluator, read_package, type_of
from rdd_edge.targets.ios.rules import broken_rules
from rdd_edge.targets.ios.runner import EvaluatorRunner

TARGET: Any = load_target("ios")
LOWERED: dict[tuple[Any, ...], Path] = {}


@pytest.fixture
def lowered(make_case: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """lowered(precision, keep, **changes): a package, made once a session."""

    def build(precision: str, keep: tuple[str, ...] = (), **changes: Any) -> Path:
        key = (precision, keep, tuple(changes.items()))
        if key not in LOWERED:
            case = make_case(TARGET.precision("fp32").rewrites, **changes)
            spec, program = case.spec(precision), case.program
            if TARGET.precision(precision).quantized:
                program = TARGET.quantize(program, spec, case.calibration(), keep)
            LOWERED[key] = TARGET.lower(program, spec, tmp_path_factory.mktemp("ios")).path
        return LOWERED[key]

    return build


def parity(case: Any, path: Path, precision: str) -> float:
    return float(case.psnr(EvaluatorRunner(path, 1)))


def types_of(path: Path) -> Counter[tuple[str, str]]:
    """Operators with the declared type of their first result."""
    operations = read_package(path).operations
    return Counter((op.op_type, type_of(op.outputs[0])) for op in operations if op.op_type != "const")


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("weight.bin"))


@pytest.mark.parametrize(
    ("precision", "least"), [("fp32", 100.0), ("fp16", 55.0), ("w8", 40.0), ("w6", 30.0), ("w4", 18.0), ("int8", 35.0)]
)
def test_parity_of_the_package(
    make_case: Callable[..., Any], lowered: Callable[..., Path], precision: str, least: float
) -> None:
    assert parity(make_case(TARGET.precision("fp32").rewrites), lowered(precision), precision) >= least


def test_label_of_a_conditional_network(make_case: Callable[..., Any], lowered: Callable[..., Path]) -> None:
    case, path = (
        make_case(TARGET.precision("fp32").rewrites, num_class_embeds=10, seed=1),
        lowered("fp16", num_class_embeds=10, seed=1),
    )
    inputs = read_package(path).inputs
    assert {name: type_of(var) for name, var in inputs.items()} == {"z": "fp32", "label": TARGET.label_dtype}
    assert parity(case, path, "fp16") >= 45.0
    assert TARGET.broken_rules(path, "fp16") == ()  # the casts of the label are not the image's


def test_the_whole_network_is_float16_with_four_dimensions(lowered: Callable[..., Path]) -> None:
    for precision in ("fp16", "w8", "w6", "w4"):
        types = types_of(lowered(precision))
        assert [operator for operator, declared in types if declared == "fp32"] == ["cast"]
        assert types["cast", "fp32"] == types["cast", "fp16"] == 1  # x and z
        assert TARGET.broken_rules(lowered(precision), precision) == ()


def test_large_activations_stay_in_range(make_case: Callable[..., Any], tmp_path: Path) -> None:
    """Squares of such activations overflow float16; scaled normalisations compute what float32 does."""
    case = make_case(("fold_time",))
    rewrites = TARGET.precision("fp16").rewrites
    program = apply_rewrites(export_program(loud(small_unet(), 300.0), case.shape, None), rewrites)
    spec, z = case.spec("fp16"), case.z[:1]
    with torch.no_grad():
        expected = program.module()(torch.from_numpy(z)).numpy()
    found = EvaluatorRunner(TARGET.lower(program, spec, tmp_path / "scaled").path, 1).run(z, None)
    assert psnr_per_image(found, expected, 2.0)[0] >= 55.0
    convert(program, spec).save(str(tmp_path / "naive.mlpackage"))
    with pytest.raises(ArtifactError, match="overflows float16"):
        EvaluatorRunner(tmp_path / "naive.mlpackage", 1).run(z, None)


def test_rules_name_what_the_neural_engine_does_not_take(make_case: Callable[..., Any], tmp_path: Path) -> None:
    """A normalisation in float32, and one that coremltools makes of the operator itself, in five dimensions."""
    case = make_case(("fold_time",))
    spec = case.spec("fp16")
    path = TARGET.lower(case.program, spec, tmp_path).path
    broken = TARGET.broken_rules(path, "fp16")
    assert all("has 5 dimensions" in clause for clause in broken)
    assert broken
    fp32 = TARGET.lower(case.program, case.spec("fp32"), tmp_path).path
    assert any("(conv) is float32" in clause for clause in TARGET.broken_rules(fp32, "fp16"))
    assert TARGET.broken_rules(fp32, "fp32") == ()


@pytest.mark.parametrize(
    ("fault", "clauses"),
    [
        ("none", []),
        (
            "float32 island",
            ["wide (cast) is float32", "wide converts", "island (square) is float32", "narrow converts"],
        ),
        ("missing cast", ["bare (square) is float32", "half converts"]),
    ],
)
def test_a_planted_type_is_named(fault: str, clauses: list[str]) -> None:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 1, 2, 2))], opset_version=ct.target.iOS17)
    def program(z: Any) -> Any:
        h = mb.square(x=z, name="bare") if fault == "missing cast" else z
        h = mb.cast(x=h, dtype="fp16", name="half")
        if fault == "float32 island":
            h = mb.square(x=mb.cast(x=h, dtype="fp32", name="wide"), name="island")
            h = mb.cast(x=h, dtype="fp16", name="narrow")
        return mb.cast(x=mb.relu(x=h), dtype="fp32", name="x")

    broken = broken_rules(program.functions["main"], "fp16")
    assert len(broken) == len(clauses)
    assert all(found.startswith(clause) for found, clause in zip(broken, clauses, strict=True)), broken


def test_rules_and_images_take_one_reading_of_the_package(
    make_case: Callable[..., Any], lowered: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return read_package(path)

    for module in ("evaluator", "evaluator.evaluate"):
        monkeypatch.setattr(f"rdd_edge.targets.ios.{module}.read_package", counted)
    case, path = make_case(TARGET.precision("fp16").rewrites), lowered("fp16")
    runner, broken = TARGET.checked_runner(path, case.spec("fp16"), 1)
    runner.load()
    assert case.psnr(runner) >= 55.0
    assert (broken, read) == ((), [path])


def test_time_is_folded(make_case: Callable[..., Any], lowered: Callable[..., Path], tmp_path: Path) -> None:
    assert types_of(lowered("fp32"))["linear", "fp32"] == 4  # q, k, v and out of one attention; no time MLP
    unfolded = make_case(())
    path = TARGET.lower(unfolded.program, unfolded.spec("fp32"), tmp_path).path
    assert types_of(path)["linear", "fp32"] > 4


def test_interface_and_version(lowered: Callable[..., Path]) -> None:
    import coremltools.proto.Model_pb2 as model_pb2

    path = lowered("w4")
    model = model_pb2.Model()
    model.ParseFromString((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    assert model.specificationVersion == 8  # iOS 17
    (z,), (x,) = model.description.input, model.description.output
    for value, name in ((z, "z"), (x, "x")):
        array = value.type.multiArrayType
        assert (value.name, list(array.shape)) == (name, [1, 1, 8, 8])
        assert array.dataType == array.FLOAT32


def test_needs_are_those_of_the_saved_file(make_case: Callable[..., Any], tmp_path: Path) -> None:
    case = make_case(TARGET.precision("fp16").rewrites)
    needs = TARGET.lower(case.program, case.spec("fp16"), tmp_path).needs
    assert (needs.backend, needs.system.name, needs.system.least) == ("coreml", "iOS", "17")
    assert (needs.runtime.name, needs.runtime.least) == ("Core ML specification", "8")
    assert needs.compute_units == "all"


def test_files_are_core_mls_own_and_readable(lowered: Callable[..., Path]) -> None:
    path = lowered("fp16")
    files = {
        file.relative_to(path).as_posix(): file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()
    }
    data = "Data/com.apple.CoreML"
    assert files == dict.fromkeys(["Manifest.json", f"{data}/model.mlmodel", f"{data}/weights/weight.bin"], 0o644)


@pytest.mark.parametrize(
    ("precision", "operator", "most"),
    [
        ("w8", "constexpr_affine_dequantize", 0.28),
        ("w6", "constexpr_lut_to_dense", 0.23),
        ("w4", "constexpr_lut_to_dense", 0.17),
    ],
)
def test_weights_are_stored_small(lowered: Callable[..., Path], precision: str, operator: str, most: float) -> None:
    assert types_of(lowered(precision))[operator, "fp16"] >= 25
    assert size_of(lowered(precision)) <= most * size_of(lowered("fp32"))


def test_palettized_weights_take_16_values(lowered: Callable[..., Path]) -> None:
    evaluator = Evaluator(lowered("w4"))
    weight = small_unet().mid_block.resnets[0].conv2.weight.detach()
    convolutions = evaluator.function.find_ops(op_type="conv")
    convolution = next(op for op in convolutions if "mid_block_resnets_0_conv2" in op.weight.name)
    stored = evaluator.constants[convolution.weight]
    assert len(torch.unique(stored)) <= 16
    assert len(torch.unique(weight)) > 16
    assert torch.nn.functional.cosine_similarity(stored.flatten(), weight.flatten(), 0) > 0.99


def test_int8_rounds_what_enters_each_product(lowered: Callable[..., Path]) -> None:
    operations = read_package(lowered("int8")).operations
    products = [op for op in operations if op.op_type in ("conv", "linear") and "average" not in op.weight.name]
    assert len(products) == 25 + 4
    for op in products:
        assert op.x.op.op_type == "dequantize"
        assert op.weight.op.op_type == "constexpr_affine_dequantize"
    assert not any("zero_point" in op.inputs for op in operations if op.op_type in ("quantize", "dequantize"))


def test_keep_leaves_a_layer_unrounded(make_case: Callable[..., Any], lowered: Callable[..., Path]) -> None:
    case = make_case(TARGET.precision("fp32").rewrites)
    first = read_package(lowered("int8", ("conv_in",))).find_ops(op_type="conv")[0]
    assert first.x.op.op_type == "cast"
    assert first.weight.op.op_type == "const"
    kept = TARGET.quantize(case.program, case.spec("int8"), case.calibration(), ("conv_in",))
    assert kept.int8_macs_fraction == pytest.approx(case.share_without("conv_in"))
    assert kept.int8_macs_fraction < 1
    with pytest.raises(UsageError, match="conv_nowhere"):
        TARGET.quantize(case.program, case.spec("int8"), case.calibration(), ("conv_nowhere",))


def test_model_that_coremltools_cannot_take(make_case: Callable[..., Any], tmp_path: Path) -> None:
    class Unusual(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(z)

    case = make_case(TARGET.precision("fp32").rewrites)
    program = torch.export.export(Unusual(), (torch.zeros(case.shape),))
    with pytest.raises(ExportError, match=r"the ios target cannot convert this model: .*bessel_j0"):
        TARGET.lower(program, case.spec("fp16"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_converters_are_silent(tmp_path: Path, tiny_checkpoint: Path) -> None:
    script = f"""
from pathlib import Path
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.exporting.program import export_program
from rdd_edge.dependencies import silenced
from rdd_edge.targets import load_target
from rdd_edge.targets.base import CalibrationSet, ExportSpec
import numpy as np
with silenced():
    program = export_program(read_checkpoint(Path({str(tiny_checkpoint)!r})).load(), (1, 1, 8, 8), None)
target, spec = load_target("ios"), ExportSpec("int8", (1, 1, 8, 8), None)
calibration = CalibrationSet(np.ones((1, 1, 8, 8), np.float32), None, 0)
target.lower(target.quantize(program, spec, calibration, ()), spec, Path({str(tmp_path)!r}))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
    assert (tmp_path / "model.mlpackage").is_dir()
