"""W8A8: what enters a convolution or linear is rounded to int8, symmetric, one scale per tensor.

Core ML has `quantize` and `dequantize`; an exported program has the same pair in the `quantized_decomposed` operators,
which coremltools translates one to one. So the program itself is edited, and what Core ML gets can be run in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from ...dependencies import silenced
from ...graphs.layers import Layer, check_keep, layers
from ..base import CalibrationSet, ExportSpec, Quantized
from ..observers import LEVELS, Threshold, batches, histograms, least_squares

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["quantize"]

SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)  # scales are float16 in the package


def quantize(
    program: ExportedProgram,
    spec: ExportSpec,
    calibration: CalibrationSet,
    keep: tuple[str, ...],
    threshold: Threshold = least_squares,
) -> Quantized:
    """The program with quantize → dequantize in front of every product but those of `keep`.

    calibration: at least one batch of spec.input_shape[0] samples.  keep: the program's names of layers.
    Raises UsageError for a layer that the program does not have.
    """
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    every = layers(gm)
    check_keep(keep, [layer.name for layer in every])
    chosen = [layer for layer in every if layer.name not in keep]
    inputs = list(dict.fromkeys(_input(layer) for layer in chosen))
    found = histograms(partial(_observe, gm, inputs, calibration, spec.input_shape[0]))
    for node in inputs:
        readers = [layer.node for layer in chosen if _input(layer) is node]
        _insert(gm, node, readers, threshold(*found[node.name]) / LEVELS)
    gm.recompile()
    assert program.example_inputs is not None
    with silenced(), torch.no_grad():
        quantized = torch.export.export(gm, *program.example_inputs, strict=False)
    share = sum(layer.macs for layer in chosen) / max(sum(layer.macs for layer in every), 1)
    return Quantized(quantized, share, keep)


def _input(layer: Layer) -> Node:
    node = layer.node.args[0]
    assert isinstance(node, Node)
    return node


class _Watch(Interpreter):
    """Runs a graph and keeps the values of some of its nodes."""

    def __init__(self, gm: GraphModule, nodes: list[Node]) -> None:
        super().__init__(gm)
        self.wanted = set(nodes)
        self.seen: list[tuple[str, NDArray[np.float32]]] = []

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted:
            self.seen.append((n.name, value.detach().numpy()))
        return value


def _observe(
    gm: GraphModule, nodes: list[Node], calibration: CalibrationSet, batch: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for z, label in batches(calibration, batch):
        watch = _Watch(gm, nodes)
        with torch.no_grad():
            watch.run(torch.from_numpy(z), *(() if label is None else (torch.from_numpy(label),)))
        yield from watch.seen


def _insert(gm: GraphModule, node: Node, readers: list[Node], scale: float) -> None:
    """One quantize → dequantize pair between a node and those of its readers that are quantized."""
    scheme = (max(scale, SMALLEST_SCALE), 0, -128, 127, torch.int8)
    with gm.graph.inserting_before(min(readers)):
        q = gm.graph.call_function(_decomposed().quantize_per_tensor.default, (node, *scheme))
        dq = gm.graph.call_function(_decomposed().dequantize_per_tensor.default, (q, *scheme))
    for reader in readers:
        reader.replace_input_with(node, dq)


def _decomposed() -> Any:
    """The operators' namespace; importing this module of PyTorch's is what registers them."""
    with silenced():
        import torch.ao.quantization.fx._decomposed
    return torch.ops.quantized_decomposed
