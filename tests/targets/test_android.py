"""Android: what the .pte computes, what is int8 in it, and what the runner says of a file it cannot run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import small_unet

from rdd_edge.errors import ArtifactError, ExportError, UsageError
from rdd_edge.targets.android import target
from rdd_edge.targets.base import CalibrationSet, ExportSpec

RUN = (1, 1, 8, 8)


def lowered(case: Any, precision: str, out: Path, keep: tuple[str, ...] = ()) -> tuple[Any, Any]:
    spec, program = case.spec(precision), case.program
    if target.precision(precision).quantized:
        program = target.quantize(program, spec, case.calibration(), keep)
    artifact = target.lower(program, spec, out)
    return program, target.runner(artifact.path, spec, 1)


@pytest.fixture(scope="module", params=[{}, {"num_class_embeds": 10}], ids=["plain", "classes"])
def fp32(
    request: pytest.FixtureRequest, make_case: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A network and its fp32 artifact in the runtime."""
    case = make_case(target.precision("fp32").rewrites, **request.param)
    return case, lowered(case, "fp32", tmp_path_factory.mktemp("fp32"))[1]


def test_fp32_is_exact(fp32: Any) -> None:
    case, runner = fp32
    assert case.psnr(runner) >= target.precision("fp32").parity_db


@pytest.mark.usefixtures("every_even_map_is_worth_it")
def test_pairs_of_rows_are_exact_in_the_runtime(make_case: Callable[..., Any], tmp_path: Path) -> None:
    case = make_case(target.precision("fp32").rewrites, seed=11)  # not the one that other tests share, which has none
    assert any(value.shape[2:] == (1, 3) for value in case.program.state_dict.values())
    assert case.psnr(lowered(case, "fp32", tmp_path)[1]) >= target.precision("fp32").parity_db


def test_a_wrong_input_is_a_sentence(fp32: Any) -> None:
    case, runner = fp32
    with pytest.raises(ArtifactError, match="ExecuTorch cannot run"):
        runner.run(np.zeros((1, 1, 16, 16), dtype=np.float32), None if case.label is None else case.label[:1])


def test_results_outlive_the_next_run(fp32: Any) -> None:
    case, runner = fp32
    labels = [None, None] if case.label is None else [case.label[i : i + 1] for i in (0, 1)]
    first = runner.run(case.z[:1], labels[0])
    before = first.copy()
    assert not np.array_equal(runner.run(case.z[1:2], labels[1]), before)
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("largest", [1.0, 2000.0])
def test_half_is_near_and_survives_activations_whose_squares_it_cannot_hold(
    make_case: Callable[..., Any], largest: float
) -> None:
    """Before the first normalisation, whose statistics are float32, activations may reach thousands."""
    import torch

    from rdd_edge.diffusion.network import one_step
    from rdd_edge.exporting.program import export_program
    from rdd_edge.exporting.rewrites import apply_rewrites
    from rdd_edge.targets.android.half import to_half

    unet = small_unet()
    with torch.no_grad():
        unet.conv_in.weight *= largest
        z = torch.from_numpy(make_case(target.precision("fp32").rewrites).z[:1])
        program = apply_rewrites(export_program(unet, RUN, None), target.precision("fp32").rewrites)
        x, expected = to_half(program).module()(z), one_step(unet, z)
    assert x.dtype == torch.float32
    assert 10 * torch.log10(4 / (x - expected).square().mean()) >= target.precision("fp16").parity_db


def test_int8_covers_every_product_but_those_kept(make_case: Callable[..., Any], tmp_path: Path) -> None:
    from rdd_edge.graphs.layers import layers
    from rdd_edge.targets.android.quantize import int8_names

    case = make_case(target.precision("fp32").rewrites)
    keep = ("conv_in", "mid_block.attentions.0.to_q")
    quantized, runner = lowered(case, "int8", tmp_path, keep)
    every = layers(case.program.module(check_guards=False))
    kept = sum(layer.macs for layer in every if layer.name in keep)
    assert {layer.name for layer in every} >= set(keep)
    assert len(int8_names(quantized.program.module(check_guards=False))) == len(every) - len(keep)
    assert quantized.int8_macs_fraction == pytest.approx(1 - kept / sum(layer.macs for layer in every))
    assert case.psnr(runner) >= 30  # random weights; trained students are held to parity_db


def test_a_layer_left_in_float32_is_named(make_case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An island that the conversion would pass over in silence."""
    from rdd_edge.targets.android.quantize import LayerQuantizer

    annotate, left_out = LayerQuantizer._annotate, []

    def all_but_the_first(self: LayerQuantizer, node: Any) -> None:
        if left_out in ([], [node.name]):
            left_out[:] = [node.name]
        else:
            annotate(self, node)

    monkeypatch.setattr(LayerQuantizer, "_annotate", all_but_the_first)
    case = make_case(target.precision("int8").rewrites)
    with pytest.raises(ExportError, match="the layer conv_in was not quantized"):
        target.quantize(case.program, case.spec("int8"), case.calibration(), ())


def test_unknown_layer_to_keep_is_refused(make_case: Callable[..., Any]) -> None:
    case = make_case(target.precision("fp32").rewrites)
    with pytest.raises(UsageError, match="no convolution or linear layer named conv_nowhere"):
        target.quantize(case.program, case.spec("int8"), case.calibration(), ("conv_nowhere",))


def test_calibration_smaller_than_a_batch_is_refused(make_case: Callable[..., Any]) -> None:
    case = make_case(target.precision("fp32").rewrites)
    empty = CalibrationSet(np.zeros((0, 1, 8, 8), dtype=np.float32), None, 1)
    with pytest.raises(UsageError, match="calibration set of 0 samples"):
        target.quantize(case.program, case.spec("int8"), empty, ())


def test_a_file_that_is_no_program_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"not a program" * 100)
    runner = target.runner(path, ExportSpec("fp32", RUN, None), 1)
    assert runner is not None
    with pytest.raises(ArtifactError, match=f"ExecuTorch cannot load {path}"):
        runner.load()
