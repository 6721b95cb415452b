"""W8A8: the inputs of convolutions and linear layers are rounded to int8, symmetric, with one scale per tensor.

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
from ...graphs.cleanup import export_again, graph_of
from ...graphs.layers import layers, without
from ..base import CalibrationSet, ExportSpec, Quantized
from ..ranges import LEVELS, SMALLEST_SCALE, clips

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def quantize(
    program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
) -> Quantized:
    """The program with quantize → dequantize before every convolution and linear layer except those of `keep`.

    `lower` quantizes the weights.  Arguments and errors are those of Target.quantize.
    """
    gm = graph_of(program)
    chosen, fraction = without(layers(gm), keep)
    readers: dict[Any, list[Node]] = {}  # of each tensor that a layer reads
    for layer in chosen:
        readers.setdefault(layer.node.args[0], []).append(layer.node)
    clip = clips(partial(observe, gm, list(readers)), calibration, spec.input_shape[0])
    for node, products in readers.items():
        _insert(gm, node, products, clip[node.name] / LEVELS)
    with silenced():
        return Quantized(export_again(gm, program), fraction, keep)


def observe(gm: GraphModule, nodes: list[Node], *inputs: NDArray[Any]) -> list[tuple[str, NDArray[np.float32]]]:
    """(name, value) of each of the nodes when the graph runs on z and, where it takes them, labels."""
    interpreter = Interpreter(gm, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(*map(torch.from_numpy, inputs))
    return [(node.name, interpreter.env[node].numpy()) for node in nodes]


def _insert(gm: GraphModule, node: Node, readers: list[Node], scale: float) -> None:
    """Insert one quantize → dequantize pair between a node and its readers that are quantized."""
    with silenced():
        import torch.ao.quantization.fx._decomposed  # registers the operators
    operators = torch.ops.quantized_decomposed
    scheme = (max(scale, SMALLEST_SCALE), 0, -128, 127, torch.int8)
    with gm.graph.inserting_before(min(readers)):
        q = gm.graph.call_function(operators.quantize_per_tensor.default, (node, *scheme))
        dq = gm.graph.call_function(operators.dequantize_per_tensor.default, (q, *scheme))
    for reader in readers:
        reader.replace_input_with(node, dq)
