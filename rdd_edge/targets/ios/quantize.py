"""W8A8: the inputs of convolutions and linears are rounded to int8, symmetric, with one scale per tensor.

coremltools translates PyTorch's `quantized_decomposed` operators one to one to Core ML's `quantize` and `dequantize`.
The exported program itself is therefore edited, and it still runs in PyTorch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from ...dependencies import silenced
from ...graphs.layers import Layer, check_keep, layers
from ..base import CalibrationSet, ExportSpec, Quantized
from ..ranges import LEVELS, SMALLEST_SCALE, clips

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["quantize"]


def quantize(
    program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
) -> Quantized:
    """The program with quantize → dequantize before every convolution and linear but those of `keep`.

    `lower` quantizes the weights.  Arguments and errors are those of Target.quantize.
    """
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    every = layers(gm)
    check_keep(keep, [layer.name for layer in every])
    chosen = [layer for layer in every if layer.name not in keep]
    inputs = list(dict.fromkeys(_input(layer) for layer in chosen))
    clip = clips(partial(observe, gm, inputs), calibration, spec.input_shape[0])
    for node in inputs:
        readers = [layer.node for layer in chosen if _input(layer) is node]
        _insert(gm, node, readers, clip[node.name] / LEVELS)
    gm.recompile()
    assert program.example_inputs is not None
    with silenced(), torch.no_grad():
        quantized = torch.export.export(gm, *program.example_inputs, strict=False)
    fraction = sum(layer.macs for layer in chosen) / max(sum(layer.macs for layer in every), 1)
    return Quantized(quantized, fraction, keep)


def _input(layer: Layer) -> Node:
    node = layer.node.args[0]
    assert isinstance(node, Node)
    return node


class _Watch(Interpreter):
    """Runs a graph and keeps the values of some nodes."""

    def __init__(self, gm: GraphModule, nodes: list[Node]) -> None:
        super().__init__(gm)
        self.wanted = set(nodes)
        self.seen: list[tuple[str, NDArray[np.float32]]] = []

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted:
            self.seen.append((n.name, value.detach().numpy()))
        return value


def observe(
    gm: GraphModule, nodes: list[Node], z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> list[tuple[str, NDArray[np.float32]]]:
    """(name, value) of each of the nodes when the graph runs on z (N, C, H, W) and labels (N,)."""
    watch = _Watch(gm, nodes)
    with torch.no_grad():
        watch.run(*(torch.from_numpy(value) for value in (z, label) if value is not None))
    return watch.seen


def _insert(gm: GraphModule, node: Node, readers: list[Node], scale: float) -> None:
    """Insert one quantize → dequantize pair between a node and the readers of it that are quantized."""
    scheme = (max(scale, SMALLEST_SCALE), 0, -128, 127, torch.int8)
    with gm.graph.inserting_before(min(readers)):
        q = gm.graph.call_function(_decomposed().quantize_per_tensor.default, (node, *scheme))
        dq = gm.graph.call_function(_decomposed().dequantize_per_tensor.default, (q, *scheme))
    for reader in readers:
        reader.replace_input_with(node, dq)


def _decomposed() -> Any:
    """The namespace of the operators, which importing a module of PyTorch registers."""
    with silenced():
        import torch.ao.quantization.fx._decomposed
    return torch.ops.quantized_decomposed
