"""Group normalisation that stays in the range of float16, so that the whole network can be float16.

The Neural Engine computes in float16 alone: one float32 operator moves its part of the model to another processor, and
every change of processor costs copies. A variance leaves float16 easily: the square of 256 is infinite, and a phone
shows a black image. Since the normalisation of s·x with s²·ε is that of x with ε, x is multiplied by a power of two,
which changes no digit, such that its squares and even their sum over all pixels stay in range: whether the Neural
Engine adds up in float16 or in float32 is not documented. One factor for each normalisation, and not for each of its
groups: Core ML multiplies it into the convolution before, where a table of 16 weights has to serve all channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...graphs.cleanup import export_again, graph_of
from ...graphs.layers import AVERAGING
from ...graphs.nodes import add_constant, constant, is_constant
from ...portable.noise import inputs
from ..base import CalibrationSet, ExportSpec
from .quantize import observe

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SAMPLES, SEED = 32, 2**32 + 4  # of the noise; beyond 32 bits, so that no benchmark run samples from it
LARGEST = 32.0  # magnitude: eight times as much is a square of 65536
LARGEST_SUM = 2.0**13  # of a channel's squares over all pixels: an eighth of float16's maximum
SMALLEST_HALF = 2.0**-24  # below it ε would be 0, and the inverse of a constant group's deviation infinite

aten = torch.ops.aten


class _Norm(NamedTuple):
    """The nodes of one normalisation of means (exporting.rewrites.group_norm) that its scale changes."""

    x: Node
    means: Node  # of x over pixels
    centred: Node  # x less the means of its groups
    variance: Node  # the second averaging, whose bias is ε


def in_half_range(program: ExportedProgram, spec: ExportSpec) -> ExportedProgram:
    """The program with every group normalisation scaled into the range of float16, as it is on noise at t = 1.

    program: with group normalisations of means.
    """
    gm = graph_of(program)
    norms = [norm for node in gm.graph.nodes if (norm := _norm_of(node))]
    scales: dict[str, Tensor] = {}
    batch, *shape = spec.input_shape
    indices = range(-(-SAMPLES // batch) * batch)
    calibration = CalibrationSet(*inputs(SEED, indices, tuple(shape), spec.classes), SEED)
    for values in calibration.batches(batch):
        for name, value in observe(gm, [norm.x for norm in norms], *values):
            scale = _scale(torch.from_numpy(value))
            scales[name] = torch.minimum(scale, scales.get(name, scale))
    for norm in norms:
        _insert(gm, norm, scales[norm.x.name])
    return export_again(gm, program)


def _norm_of(node: Node) -> _Norm | None:
    """The normalisation whose second averaging `node` is."""
    if node.target != aten.conv2d.default or not str(getattr(node.args[1], "target", "")).endswith(f".{AVERAGING}"):
        return None
    if len(node.args) < 3 or not is_constant(node.args[2]):
        return None
    squares = _first(_first(node))
    centred = _first(squares)
    first_averaging = centred.args[1]
    assert isinstance(first_averaging, Node)
    return _Norm(_first(centred), _first(first_averaging), centred, node)


def _first(node: Node) -> Node:
    """The node's first operand."""
    assert isinstance(node.args[0], Node)
    return node.args[0]


def _scale(x: Tensor) -> Tensor:
    """The largest power of two that keeps x (N, C, H, W) within both limits."""
    largest = x.abs().amax()
    squares = (x - x.mean((2, 3), keepdim=True)).square().sum((2, 3)).amax()
    bound = torch.minimum(LARGEST / largest.clamp(min=1e-6), (LARGEST_SUM / squares.clamp(min=1e-12)).sqrt())
    return torch.exp2(bound.log2().floor()).clamp(2.0**-14, 2.0**6)


def _insert(gm: GraphModule, norm: _Norm, scale: Tensor) -> None:
    """Multiply x by a scale, and ε by its square."""
    weight, eps = norm.variance.args[1:3]
    assert isinstance(weight, Node) and isinstance(eps, Node)
    owner = str(weight.target).rpartition(".")[0]
    factor = add_constant(gm, f"{owner}.range", scale.view(1, 1, 1, 1), norm.means)
    with gm.graph.inserting_before(norm.means):
        scaled = gm.graph.call_function(aten.mul.Tensor, (norm.x, factor))
    for reader in (norm.means, norm.centred):
        reader.replace_input_with(norm.x, scaled)
    in_range = (constant(gm, eps) * scale.square()).clamp(min=SMALLEST_HALF)
    norm.variance.replace_input_with(eps, add_constant(gm, f"{owner}.eps", in_range, norm.variance))
