"""Multiplications counted on the graph, against a count by hooks on the network's own modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import small_unet
from torch import nn

from rdd_edge.exporting.program import export_program
from rdd_edge.graphs.layers import layers, total_macs


def by_hooks(unet: nn.Module, z: torch.Tensor) -> dict[str, int]:
    found: dict[str, int] = {}

    def hook(name: str) -> Any:
        def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
            found[name] = output.numel() * module.weight[0].numel()

        return count

    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        unet(z, 999)
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_every_layer_is_counted_by_its_name(batch: int) -> None:
    unet = small_unet()
    graph = export_program(unet, (batch, 1, 8, 8), None).module()
    expected = by_hooks(unet, torch.zeros(batch, 1, 8, 8))
    found = {layer.name: layer.macs for layer in layers(graph)}
    time = {name for name in expected if "time_emb" in name}  # its batch is 1 in the graph or N, which is of no weight
    assert set(found) == set(expected)
    assert {k: v for k, v in found.items() if k not in time} == {k: v for k, v in expected.items() if k not in time}
    assert total_macs(graph) == sum(found.values())
