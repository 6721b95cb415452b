"""What a layer costs when it alone is int8."""

from __future__ import annotations

import torch
from networks import small_unet

from rdd_edge.exporting.parity import calibration_set
from rdd_edge.exporting.program import export_program
from rdd_edge.exporting.sensitivity import layer_errors, round_tensor
from rdd_edge.graphs.layers import layers


def test_rounding_has_256_steps_and_an_exact_zero() -> None:
    x = torch.linspace(-0.3, 1.0, 5001)
    rounded = round_tensor(x, x.min(), x.max())
    assert 200 < len(rounded.unique()) <= 256
    assert (rounded == 0).any()
    torch.testing.assert_close(rounded, x, atol=1.3 / 255, rtol=0)


def test_every_layer_has_an_error_and_a_wilder_weight_a_larger_one() -> None:
    program = export_program(small_unet(), (1, 1, 8, 8), None)
    calibration = calibration_set((1, 8, 8), None, samples=2)
    before = layer_errors(program, calibration, samples=2)
    assert set(before) == {layer.name for layer in layers(program.module(check_guards=False))}
    assert all(error >= 0 for error in before.values()) and before["conv_in"] > 0
    wild = small_unet()
    with torch.no_grad():
        wild.down_blocks[0].resnets[0].conv1.weight[:, 0, 0, 0] = 20.0  # its scale leaves few steps for the others
    after = layer_errors(export_program(wild, (1, 1, 8, 8), None), calibration, samples=2)
    name = "down_blocks.0.resnets.0.conv1"
    assert after[name] / after["conv_in"] > 3 * before[name] / before["conv_in"]
