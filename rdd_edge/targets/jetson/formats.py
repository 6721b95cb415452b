"""The two 8-bit formats of TensorRT's explicit quantization: int8, and fp8 (E4M3, for boards from Thor on).

The layout of both is that of NVIDIA's Model Optimizer (github.com/NVIDIA/TensorRT-Model-Optimizer,
modelopt/onnx/quantization/fp8.py), and so is fp8's calibration by the largest magnitude: the steps of a floating-point
format are relative, so that clipping gains nothing. Model Optimizer leaves convolutions with fewer than 16 channels or
filters of more than 32 elements out of fp8, and those whose channels TensorRT cannot pad; here, all it would have to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..ranges import LEVELS, clips, largest_magnitudes
from .graph import channel_axis

FP8_MULTIPLE = 16  # of input and output channels, for TensorRT's float8 kernels
FP8_FILTER = 32  # the most elements of a filter in a float8 convolution


@dataclass(frozen=True)
class Format:
    """An 8-bit type of Q/DQ."""

    name: str  # of the precision
    dtype: Any  # NumPy's
    largest: float
    takes: Callable[[ir.Node], bool]  # whether TensorRT has kernels of it for a product with a constant weight
    clips: Callable[..., dict[str, float]]  # as ranges.clips

    def rounded(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """The nearest values of the format.  values: none above `largest`."""
        return (np.round(values) if self.dtype == np.int8 else values).astype(self.dtype)


def fits_fp8(product: ir.Node) -> bool:
    """Whether TensorRT's float8 kernels take a product with this weight."""
    weight = product.inputs[1]
    assert weight is not None and weight.shape is not None
    sizes, axis = weight.shape.numpy(), channel_axis(product)
    filter_size = int(np.prod(sizes[2:]))
    channels = (sizes[axis], sizes[1 - axis])
    return (
        product.op_type != "ConvTranspose" and filter_size <= FP8_FILTER and not any(c % FP8_MULTIPLE for c in channels)
    )


FORMATS = {
    "int8": Format("int8", np.int8, LEVELS, lambda product: True, clips),
    "fp8": Format("fp8", ml_dtypes.float8_e4m3fn, 448.0, fits_fp8, largest_magnitudes),
}
