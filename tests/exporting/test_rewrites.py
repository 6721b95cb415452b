"""Each rewrite is exact: the rewritten program equals the network, on configurations of several kinds."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import pytest
import torch
from networks import small_unet
from torch.export import ExportedProgram
from torch.nn import functional

from rdd_edge.diffusion.network import one_step
from rdd_edge.errors import UsageError
from rdd_edge.exporting.program import export_program
from rdd_edge.exporting.rewrites import REWRITES, apply_rewrites
from rdd_edge.exporting.rewrites.upsample import phase_kernels, transposed_kernel, upsample_by_phases
from rdd_edge.exporting.rewrites.winograd import convolution_of_pairs, pair_kernels, winograd
from rdd_edge.graphs.layers import total_macs

pytestmark = pytest.mark.usefixtures("every_even_map_is_worth_it")
aten = torch.ops.aten
ANDROID = ("simplify", "fold_time", "upsample_subpixel", "attention", "group_norm")
DEEP = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "deep": {"layers_per_block": 2, "block_out_channels": (16, 32, 32), **DEEP},
    "attention everywhere": {
        "attention_head_dim": 8,
        "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
    },
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "in_channels": 3, "out_channels": 3},
    "classes": {"num_class_embeds": 10},
    "many classes, scale and shift": {"num_class_embeds": 300, "resnet_time_scale_shift": "scale_shift"},
    "resnet samplers": {"downsample_type": "resnet", "upsample_type": "resnet"},
}


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=lambda name: name.replace(" ", "_"))
def case(request: pytest.FixtureRequest) -> tuple[Any, ExportedProgram, tuple[torch.Tensor, ...]]:
    """A network, its program for two images, and an input of it."""
    changes = CONFIGURATIONS[request.param]
    unet = small_unet(seed=3, **changes)
    z = torch.randn(2, unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    classes = changes.get("num_class_embeds")
    inputs = (z,) if classes is None else (z, torch.tensor([1, classes - 1]))
    return unet, export_program(unet, tuple(z.shape), classes), inputs


def operators(program: ExportedProgram) -> Counter[Any]:
    return Counter(node.target for node in program.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("names", [*((name,) for name in REWRITES), tuple(REWRITES)], ids="+".join)
def test_rewrite_is_exact(case: Any, names: tuple[str, ...]) -> None:
    unet, program, inputs = case
    rewritten = apply_rewrites(program, names)
    with torch.no_grad():
        torch.testing.assert_close(rewritten.module()(*inputs), one_step(unet, *inputs), atol=1e-5, rtol=0)


def test_fold_time_leaves_nothing_of_the_time_path(case: Any) -> None:
    unet, program, _ = case
    before, after = operators(program), operators(apply_rewrites(program, ("fold_time",)))
    blocks = sum("time_emb_proj.weight" in name for name in unet.state_dict())
    assert before[aten.sin.default] == 1 and before[aten.linear.default] >= blocks + 2
    assert after[aten.sin.default] == after[aten.cos.default] == after[aten.arange.start] == 0
    classes = unet.config.num_class_embeds
    kept = blocks if classes and classes > 128 else 0  # a table of more rows than the layer has inputs would be larger
    assert after[aten.linear.default] == before[aten.linear.default] - blocks - 2 + kept
    assert after[aten.conv2d.default] == before[aten.conv2d.default]
    if not classes:  # residual sums remain; what a block added to its convolution is in the bias
        assert after[aten.add.Tensor] < before[aten.add.Tensor]
        assert not any(name.startswith("folded") for name in program_constants(apply_rewrites(program, ("fold_time",))))


def program_constants(program: ExportedProgram) -> set[str]:
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return {value for key, value in names.items() if key in used}


def test_each_operator_is_gone_after_its_rewrite(case: Any) -> None:
    _, program, _ = case
    after = operators(apply_rewrites(program, tuple(REWRITES)))
    gone = (aten.dropout.default, aten.scaled_dot_product_attention.default, aten.group_norm.default)
    assert [after[target] for target in gone] == [0, 0, 0]


def test_transposed_kernel_equals_nearest_then_convolution() -> None:
    x, kernel = torch.randn(2, 3, 5, 4).double(), torch.randn(6, 3, 3, 3).double()
    expected = functional.conv2d(functional.interpolate(x, scale_factor=2.0), kernel, padding=1)
    found = functional.conv_transpose2d(x, transposed_kernel(kernel), stride=2, padding=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["upsample", "upsample_subpixel"])
def test_upsampling_saves_five_ninths_of_its_products(name: str) -> None:
    program = export_program(small_unet(), (1, 1, 8, 8), None)
    rewritten = apply_rewrites(program, (name,))
    convolution = 64 * 64 * 9 * 8 * 8
    assert total_macs(program.module()) - total_macs(rewritten.module()) == convolution * 5 // 9
    assert operators(rewritten)[aten.upsample_nearest2d.vec] == 0


def test_phases_equal_nearest_then_convolution() -> None:
    x, kernel, bias = torch.randn(2, 3, 5, 4).double(), torch.randn(6, 3, 3, 3).double(), torch.randn(6).double()
    expected = functional.conv2d(functional.interpolate(x, scale_factor=2.0), kernel, bias, padding=1)
    torch.testing.assert_close(upsample_by_phases(x, phase_kernels(kernel), bias), expected)


def test_convolution_of_pairs_equals_the_convolution() -> None:
    x, kernel, bias = torch.randn(2, 3, 6, 5).double(), torch.randn(7, 3, 3, 3).double(), torch.randn(7).double()
    found = convolution_of_pairs(x.reshape(2, 3, 3, 10), *pair_kernels(kernel), bias)
    torch.testing.assert_close(found.reshape(2, 7, 6, 5), functional.conv2d(x, kernel, bias, padding=1))


def test_pairs_of_rows_reach_every_convolution_of_even_maps_and_change_places_only_between_sizes() -> None:
    program = export_program(small_unet(), (1, 1, 8, 8), None)
    rewritten = apply_rewrites(program, (*ANDROID, "winograd"))
    kernels = Counter(tuple(each.shape[2:]) for each in rewritten.state_dict.values() if each.dim() == 4)
    assert kernels[3, 3] == 1  # the downsampling's, of stride 2
    assert kernels[1, 3] == 4 * sum(each.shape[2:] == (3, 3) for each in plain(program))
    views, before = (operators(each)[aten.reshape.default] for each in (rewritten, apply_rewrites(program, ANDROID)))
    # Into pairs: noise, the downsampled map, attention's result. Out of them: to downsampling, attention, upsampling;
    # the image.
    assert views - before == 7


def plain(program: ExportedProgram) -> list[torch.Tensor]:
    """Kernels of the convolutions of stride 1 that no upsampling precedes."""
    found = [
        (node, program.state_dict[program.graph_signature.inputs_to_parameters[node.args[1].name]])
        for node in program.graph.nodes
        if node.target == aten.conv2d.default
    ]
    return [
        kernel
        for node, kernel in found
        if list(node.args[3:4]) in ([], [[1, 1]]) and node.args[0].target != aten.upsample_nearest2d.vec
    ]


def test_convolutions_of_little_work_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    program = export_program(small_unet(), (1, 1, 8, 8), None)
    monkeypatch.setattr(importlib.import_module(winograd.__module__), "LEAST_MACS", 64 * 64 * 9 * 64)
    assert operators(apply_rewrites(program, ("winograd",))) == operators(program)


def test_unknown_rewrite_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"no rewrite 'nothing': choose from simplify, fold_time"):
        apply_rewrites(export_program(small_unet(), (1, 1, 8, 8), None), ("nothing",))
