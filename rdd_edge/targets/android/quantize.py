"""Int8 by PT2E: the products in int8, nothing else, because rounding sums and normalisations too ruins a U-Net.

Each convolution and linear gets int8 weights, one scale per output channel, and int8 input and output, one scale and
zero point per tensor; XNNPACK then multiplies in int8. Every layer is annotated by its node: the stock quantizer's
filters by module type silently miss most layers of an exported graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from ...errors import ExportError
from ...graphs.cleanup import export_again
from ...graphs.layers import PRODUCTS, Layer, check_keep, layers
from ..base import CalibrationSet, ExportSpec, Quantized
from ..ranges import batches

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["OBSERVERS", "LayerQuantizer", "int8_names", "quantize"]

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed
EPSILON = 2**-12  # the least scale XNNPACK's requantization takes without loss
# Where activations are clipped: nowhere, at a running mean of each batch's range, or where the squared error of a
# histogram is least. On a student of digits, with 256 calibration samples: a PSNR of 45.5, 38.7 and 46.8 dB, median,
# 37.9, 27.4 and 38.6 dB for the worst image; with 8 samples 45.2, 35.8 and 45.8 (benchmarks/observers.py RUN).
OBSERVERS = {"range": MinMaxObserver, "running": MovingAverageMinMaxObserver, "histogram": HistogramObserver}


def quantize(
    program: ExportedProgram,
    spec: ExportSpec,
    calibration: CalibrationSet,
    keep: tuple[str, ...],
    observer: str = "histogram",
) -> Quantized:
    """The program with every convolution and linear but those of `keep` in int8.

    calibration: at least one batch of spec.input_shape[0] samples.  keep: names of layers, as in the network.
    Raises UsageError for a layer that the program does not have, ExportError where less is int8 than was asked.
    """
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    before = layers(gm)
    check_keep(keep, {layer.name for layer in before})
    prepared = prepare_pt2e(gm, LayerQuantizer(keep, observer))
    with torch.no_grad():
        for z, label in batches(calibration, spec.input_shape[0]):
            prepared(*(torch.from_numpy(value) for value in (z, label) if value is not None))
        converted = convert_pt2e(prepared)
        fraction = _int8_fraction(converted, before, keep)
    return Quantized(export_again(converted, program), fraction, keep)


class LayerQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates each layer of a graph by its node, but for those it is told to keep."""

    def __init__(self, keep: tuple[str, ...], observer: str = "histogram") -> None:
        super().__init__()
        self._keep, self._observer = keep, OBSERVERS[observer]

    def annotate(self, model: GraphModule) -> GraphModule:
        for layer in layers(model):
            if layer.name not in self._keep:
                _annotate(layer.node, self._observer)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: what was annotated is counted after conversion."""


def _annotate(node: Node, observer: Any) -> None:
    channel_axis = 1 if node.target == aten.conv_transpose2d.input else 0
    source: Any = node.args[0]
    padded = source.target == aten.pad.default
    activations = _annotate_padding(source, observer) if padded else _activations(observer)
    node.meta["quantization_annotation"] = QuantizationAnnotation(
        input_qspec_map={source: activations, node.args[1]: _weights(channel_axis)},
        output_qspec=_activations(observer),
        _annotated=True,
    )


def _annotate_padding(pad: Node, observer: Any) -> Any:
    """Padding with zeros in front of a layer rounds as its input does, so that the two become one in XNNPACK."""
    source: Any = pad.args[0]
    shared = SharedQuantizationSpec((source, pad))
    pad.meta["quantization_annotation"] = QuantizationAnnotation(
        input_qspec_map={source: _activations(observer)}, output_qspec=shared, _annotated=True
    )
    return shared


def _activations(observer: Any) -> Any:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observer.with_args(eps=EPSILON),
    )


def _weights(channel_axis: int) -> Any:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=channel_axis,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=EPSILON),
    )


def int8_names(converted: GraphModule) -> set[str]:
    """Names of the product nodes that are int8: input and weight are dequantized, and every user quantizes again."""
    return {
        node.name
        for node in converted.graph.nodes
        if node.target in PRODUCTS
        and node.args[0].target == quantized.dequantize_per_tensor.default
        and node.args[1].target == quantized.dequantize_per_channel.default
        and all(user.target == quantized.quantize_per_tensor.default for user in node.users)
    }


def _int8_fraction(converted: GraphModule, before: list[Layer], keep: tuple[str, ...]) -> float:
    """Fraction of the multiplications that are int8, counted on the converted graph, in 0 … 1.

    before: the layers of the graph that was converted.  Raises ExportError for a layer that should be int8 and is not.
    """
    found = int8_names(converted)
    for layer in before:
        if (layer.name in keep) == (layer.node.name in found):
            state = "became int8" if layer.name in keep else "did not become int8"
            raise ExportError(f"the layer {layer.name} {state} on the way to Android: report this with the network")
    return sum(layer.macs for layer in before if layer.name not in keep) / sum(layer.macs for layer in before)
