"""Compressed weights, expanded: what Core ML computes once, when it loads a package.

After the operators' definitions in coremltools (converters/mil/mil/ops/defs/iOS16, iOS18: constexpr_ops, compression).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ....errors import ArtifactError
from .blob import unpack

__all__ = ["CONSTEXPR"]

Inputs = dict[str, Tensor]


def affine_dequantize(inputs: Inputs) -> Tensor:
    """scale · (quantized_data - zero_point), scale and zero point scalar or one per index of `axis`."""
    data, axis = inputs["quantized_data"], int(inputs["axis"])

    def spread(value: Tensor) -> Tensor:
        return value.reshape([-1 if d == axis else 1 for d in range(data.ndim)]) if value.ndim else value

    return spread(inputs["scale"]) * (data - spread(inputs["zero_point"])).float()


def lut_to_dense(inputs: Inputs) -> Tensor:
    """A table's values by index: the packed form of iOS 16, with `shape`, or the blocked one of iOS 18."""
    if "shape" in inputs:
        shape, lut = inputs["shape"].tolist(), inputs["lut"]
        packed = inputs["indices"].to(torch.uint8).numpy().tobytes()
        bits = int(np.log2(len(lut)))
        return lut[torch.from_numpy(unpack(packed, bits, int(np.prod(shape))).astype(np.int64))].reshape(shape)
    return _blocked_lut(inputs["indices"], inputs["lut"])


def _blocked_lut(indices: Tensor, lut: Tensor) -> Tensor:
    """indices: (d₀ …).  lut: (b₀ …, entries, 1): along each dimension, d/b neighbours share a table."""
    if lut.shape[-1] != 1:
        raise ArtifactError("the package palettizes vectors of weights, which the evaluator does not expand")
    tables = lut[..., 0]  # (b₀ …, entries)
    for axis, size in enumerate(indices.shape):
        tables = tables.repeat_interleave(size // tables.shape[axis], dim=axis)
    return torch.gather(tables, -1, indices[..., None])[..., 0]


def blockwise_shift_scale(inputs: Inputs) -> Tensor:
    """scale · (data - offset), scale and offset one per block along each dimension."""
    data = inputs["data"]

    def spread(value: Tensor) -> Tensor:
        for axis, size in enumerate(data.shape):
            value = value.repeat_interleave(size // value.shape[axis], dim=axis)
        return value

    shifted = data - spread(inputs["offset"]) if "offset" in inputs else data
    return shifted.float() * spread(inputs["scale"])


CONSTEXPR: dict[str, Callable[[Inputs], Tensor]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
}
