"""The error of the images when a single layer is in int8, by which a search ranks layers.

Rounding is simulated, so the errors only rank layers; quality is measured on artifacts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from ..graphs.cleanup import graph_of
from ..graphs.layers import TRANSPOSED, layers
from ..targets.base import CalibrationSet

SENSITIVITY_SAMPLES = 8


def layer_errors(
    program: ExportedProgram, calibration: CalibrationSet, samples: int = SENSITIVITY_SAMPLES
) -> dict[str, float]:
    """Mean squared error of the images when one layer alone is in int8, by the layer's name.

    Runs as many whole batches as `samples` holds, but at least one.
    """
    gm = graph_of(program)
    groups: dict[str, set[Node]] = {}
    for layer in layers(gm):
        groups.setdefault(layer.name, set()).add(layer.node)
    runner = _Rounding(gm, set().union(*groups.values()))
    inputs = _batches(program, calibration, samples)
    with torch.no_grad():
        exact = [runner.run(*values)[0] for values in inputs]  # also records every layer's range
        errors = {}
        for name, nodes in groups.items():
            runner.rounded = nodes
            rounded = [runner.run(*values)[0] for values in inputs]
            squares = [(a - b).square().mean() for a, b in zip(exact, rounded, strict=True)]
            errors[name] = float(torch.stack(squares).mean())
    return errors


def round_tensor(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x rounded to 256 even steps from low to high, which include zero; low and high broadcast against x."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / scale).round()
    return ((x / scale + zero).round().clamp(0, 255) - zero) * scale


def _batches(program: ExportedProgram, calibration: CalibrationSet, samples: int) -> list[tuple[Tensor, ...]]:
    assert program.example_inputs is not None
    size = program.example_inputs[0][0].shape[0]
    count = max(min(samples, len(calibration.z)) // size, 1)
    parts = [torch.from_numpy(part) for part in (calibration.z, calibration.label) if part is not None]
    return [tuple(part[i * size : (i + 1) * size] for part in parts) for i in range(count)]


class _Rounding(Interpreter):
    """Runs a graph with the layers of `rounded` in simulated int8; while that is empty, records their ranges."""

    def __init__(self, gm: GraphModule, nodes: set[Node]) -> None:
        super().__init__(gm)
        self.rounded: set[Node] = set()
        self._ranges: dict[Node, Tensor] = {node: torch.zeros(4) for node in nodes}  # low, high of input and output

    def run_node(self, n: Node) -> Any:
        if n not in self._ranges or (self.rounded and n not in self.rounded):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if not self.rounded:
            y = super().run_node(n)
            now = torch.stack([args[0].min(), args[0].max(), y.min(), y.max()])
            extremes = torch.where(torch.tensor([True, False, True, False]), -1.0, 1.0)
            self._ranges[n] = torch.maximum(now * extremes, self._ranges[n] * extremes) * extremes
            return y
        low, high, out_low, out_high = self._ranges[n]
        x, weight = round_tensor(args[0], low, high), _round_weight(args[1], 1 if n.target in TRANSPOSED else 0)
        return round_tensor(n.target(x, weight, *args[2:], **kwargs), out_low, out_high)  # type: ignore[operator]


def _round_weight(weight: Tensor, axis: int) -> Tensor:
    """Symmetric, one scale per channel of `axis`."""
    largest = weight.abs().amax([d for d in range(weight.dim()) if d != axis], keepdim=True)
    scale = (largest / 127).clamp(min=1e-12)
    return (weight / scale).round() * scale
