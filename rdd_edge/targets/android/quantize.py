"""Int8 by PT2E for convolutions and linear layers only: rounding sums and normalizations as well ruins a U-Net.

Each layer gets int8 weights with one scale per output channel, and int8 input and output with one scale and zero point
per tensor; XNNPACK then multiplies in int8. Layers are annotated by node, because the filters by module type of
ExecuTorch's own quantizer silently miss most layers of an exported graph.
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
from ...graphs.cleanup import export_again, graph_of
from ...graphs.layers import PRODUCTS, TRANSPOSED, layers, without
from ..base import CalibrationSet, ExportSpec, Quantized

if TYPE_CHECKING:
    from torch.export import ExportedProgram

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed
EPSILON = 2**-12  # the smallest scale that XNNPACK requantizes without loss
# Where activations are clipped: nowhere, at the running mean of the batches' ranges, or where the squared error of a
# histogram is least. On a digits student with 256 calibration samples, the median PSNR was 45.5, 38.7 and 46.8 dB, and
# that of the worst image 37.9, 27.4 and 38.6 dB; with 8 samples 45.2, 35.8 and 45.8 dB (benchmarks/observers.py RUN).
OBSERVERS = {"range": MinMaxObserver, "running": MovingAverageMinMaxObserver, "histogram": HistogramObserver}


def quantize(
    program: ExportedProgram,
    spec: ExportSpec,
    calibration: CalibrationSet,
    keep: tuple[str, ...],
    observer: str = "histogram",
) -> Quantized:
    """The program with every convolution and linear layer except those of `keep` in int8.

    Arguments and errors are those of Target.quantize.  observer: a key of OBSERVERS.
    Raises ExportError where the conversion skips a layer.
    """
    gm = graph_of(program)
    every = layers(gm)
    chosen, fraction = without(every, keep)
    prepared = prepare_pt2e(gm, LayerQuantizer(keep, observer))
    with torch.no_grad():
        for inputs in calibration.batches(spec.input_shape[0]):
            prepared(*map(torch.from_numpy, inputs))
        converted = convert_pt2e(prepared)
    found = int8_names(converted)
    for layer in every:
        if (layer in chosen) != (layer.node.name in found):
            state = "was not quantized" if layer in chosen else "was quantized against `keep`"
            raise ExportError(f"the layer {layer.name} {state}: this is a bug, report it with the network")
    return Quantized(export_again(converted, program), fraction, keep)


class LayerQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates the node of each layer of a graph, except the layers named in `keep`."""

    def __init__(self, keep: tuple[str, ...], observer: str = "histogram") -> None:
        super().__init__()
        self._keep = keep
        self._activations = _int8(-128, torch.per_tensor_affine, OBSERVERS[observer])

    def annotate(self, model: GraphModule) -> GraphModule:
        for layer in layers(model):
            if layer.name not in self._keep:
                self._annotate(layer.node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to check here: the int8 layers are checked after conversion."""

    def _annotate(self, node: Node) -> None:
        source: Any = node.args[0]
        axis = 1 if node.target in TRANSPOSED else 0  # of the output channels
        weights = _int8(-127, torch.per_channel_symmetric, PerChannelMinMaxObserver, axis)
        activations = self._activations
        if source.target == aten.pad.default:
            # Zero padding in front of a layer rounds as its input does, so that XNNPACK can fuse the two.
            activations = SharedQuantizationSpec((source.args[0], source))
            _mark(source, {source.args[0]: self._activations}, activations)
        _mark(node, {source: activations, node.args[1]: weights}, self._activations)


def _mark(node: Node, inputs: dict[Any, Any], output: Any) -> None:
    node.meta["quantization_annotation"] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _int8(low: int, scheme: Any, observer: Any, axis: int | None = None) -> Any:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=low,
        quant_max=127,
        qscheme=scheme,
        ch_axis=axis,
        observer_or_fake_quant_ctr=observer.with_args(eps=EPSILON),
    )


def int8_names(converted: GraphModule) -> set[str]:
    """Names of the layer nodes in int8: input and weight are dequantized, and every user quantizes the output."""
    return {
        node.name
        for node in converted.graph.nodes
        if node.target in PRODUCTS
        and node.args[0].target == quantized.dequantize_per_tensor.default
        and node.args[1].target == quantized.dequantize_per_channel.default
        and all(user.target == quantized.quantize_per_tensor.default for user in node.users)
    }
