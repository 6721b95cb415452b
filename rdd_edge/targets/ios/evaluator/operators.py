"""MIL's operators in torch, as a U-Net needs them, after coremltools' definitions (converters/mil/mil/ops/defs).

The parameters of each function are those of its operator. coremltools fills in the defaults, except where one is None.
Every number arrives as a tensor, of float32 or int64; the evaluator rounds the results.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ArtifactError


def _padding(kind: str, kernel: list[int], strides: list[int], dilations: list[int], size: list[int]) -> list[int]:
    """(before, after) of each spatial dimension, first dimension first, for pad_type `same` or `same_lower`."""
    pads = []
    for k, s, d, n in zip(kernel, strides, dilations, size, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small = total // 2
        pads += [small, total - small] if kind == "same" else [total - small, small]
    return pads


def _backwards(pads: list[int]) -> list[int]:
    """Pairs (before, after) as F.pad takes them, which starts at the last dimension."""
    return [p for i in range(len(pads) - 2, -1, -2) for p in pads[i : i + 2]]


def conv(
    x: Tensor, weight: Tensor, strides: Tensor, pad_type: str, pad: Tensor, dilations: Tensor, groups: Tensor,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    steps, spread = strides.tolist(), dilations.tolist()
    if pad_type.startswith("same"):
        pads = _padding(pad_type, list(weight.shape[2:]), steps, spread, list(x.shape[2:]))
    else:
        pads = pad.tolist() if pad_type == "custom" else []
    function = F.conv2d if x.ndim == 4 else F.conv1d
    return function(F.pad(x, _backwards(pads)), weight, bias, steps, 0, spread, int(groups))


def conv_transpose(
    x: Tensor, weight: Tensor, pad: Tensor, pad_type: str, strides: Tensor, dilations: Tensor, groups: Tensor,
    bias: Tensor | None = None, output_shape: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if pad_type not in ("valid", "custom") or (output_shape is not None and x.ndim != 4):
        raise ArtifactError("the package has a transposed convolution whose padding the evaluator does not support")
    whole = F.conv_transpose2d(x, weight, bias, strides.tolist(), 0, 0, int(groups), dilations.tolist())
    top, bottom, left, right = pad.tolist() if pad_type == "custom" else [0, 0, 0, 0]
    return whole[..., top : whole.shape[-2] - bottom, left : whole.shape[-1] - right]


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor, transpose_y: Tensor) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, float(epsilon))


def instance_norm(x: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    return F.instance_norm(x, None, None, gamma, beta, eps=float(epsilon))


def layer_norm(
    x: Tensor, axes: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    variance, mean = torch.var_mean(x, axes.tolist(), correction=0, keepdim=True)
    y = (x - mean) / torch.sqrt(variance + float(epsilon))
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, keep_dims: Tensor, axes: Tensor | None = None) -> Tensor:
        return function(x, list(range(x.ndim)) if axes is None else axes.tolist(), bool(keep_dims))

    return run


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: function(x, y)


def unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(x)


def gelu(x: Tensor, mode: str) -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def upsample_nearest(x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    height, width = int(scale_factor_height), int(scale_factor_width)
    if (height, width) != (float(scale_factor_height), float(scale_factor_width)):
        raise ArtifactError("the package upsamples by a fractional factor, which the evaluator does not support")
    return x.repeat_interleave(height, -2).repeat_interleave(width, -1)


def pad(x: Tensor, pad: Tensor, mode: str, constant_val: Tensor) -> Tensor:
    pads = _backwards(pad.tolist())
    if mode == "constant":
        return F.pad(x, pads, value=float(constant_val))
    return F.pad(x, pads, {"reflect": "reflect", "replicate": "replicate"}[mode])


def slice_by_index(
    x: Tensor, begin: Tensor, end: Tensor, stride: Tensor | None = None, begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None, squeeze_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    zeros = torch.zeros(x.ndim, dtype=torch.int64)
    from_start, to_end, squeeze = (zeros if mask is None else mask for mask in (begin_mask, end_mask, squeeze_mask))
    steps = zeros + 1 if stride is None else stride
    index: list[slice | int] = []
    for d in range(x.ndim):
        if squeeze[d]:
            index.append(int(begin[d]))
            continue
        if steps[d] < 1:
            raise ArtifactError("the package slices with a negative stride, which the evaluator does not support")
        start, stop = None if from_start[d] else int(begin[d]), None if to_end[d] else int(end[d])
        index.append(slice(start, stop, int(steps[d])))
    return x[tuple(index)]


def gather(
    x: Tensor, indices: Tensor, axis: Tensor, batch_dims: Tensor | int = 0, validate_indices: Tensor | None = None
) -> Tensor:
    if batch_dims:
        raise ArtifactError("the package gathers with batch dimensions, which the evaluator does not support")
    dim = int(axis)
    flat = torch.index_select(x, dim, torch.where(indices < 0, indices + x.shape[dim], indices).reshape(-1))
    return flat.reshape([*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :]])


def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, split_sizes.tolist(), int(axis))
    assert num_splits is not None
    return torch.chunk(x, int(num_splits), int(axis))


def concat(values: list[Tensor], axis: Tensor, interleave: Tensor) -> Tensor:
    if interleave:
        raise ArtifactError("the package concatenates with interleaving, which the evaluator does not support")
    return torch.cat(values, int(axis))


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return torch.squeeze(x) if axes is None else torch.squeeze(x, tuple(axes.tolist()))


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[d] if size == 0 else size for d, size in enumerate(shape.tolist())])


def _along(value: Tensor | None, axis: Tensor | int, rank: int) -> Tensor | float:
    """A scale or a zero point, a scalar or one value per index of `axis`, to broadcast with a tensor of this rank."""
    if value is None:
        return 0.0
    return value.reshape([-1 if d == int(axis) else 1 for d in range(rank)]) if value.ndim else value


def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: Tensor | int = 0
) -> Tensor:
    """clip(round(input / scale) + zero_point) to the range of output_dtype."""
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[output_dtype]
    rounded = torch.round(input / _along(scale, axis, input.ndim)) + _along(zero_point, axis, input.ndim)
    return rounded.clamp(low, high)


def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | int = 0) -> Tensor:
    """scale · (input - zero_point)."""
    return (input.float() - _along(zero_point, axis, input.ndim)) * _along(scale, axis, input.ndim)


OPERATORS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    **{name: unary(getattr(torch, name)) for name in ("exp", "relu", "sigmoid", "sqrt", "square", "tanh")},
    **{name: binary(getattr(torch, name)) for name in ("add", "maximum", "minimum", "mul", "pow", "sub")},
    **{name: binary(getattr(torch, name)) for name in ("greater", "greater_equal", "less", "less_equal")},
    "batch_norm": batch_norm,
    "cast": lambda x, dtype: x,  # to the declared type of its result
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "concat": concat,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "dequantize": dequantize,
    "equal": binary(torch.eq),
    "expand_dims": expand_dims,
    "gather": gather,
    "gelu": gelu,
    "identity": unary(lambda x: x),
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": matmul,
    "pad": pad,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "quantize": quantize,
    "real_div": binary(torch.div),
    "reduce_max": reduction(torch.amax),
    "reduce_mean": reduction(torch.mean),
    "reduce_min": reduction(torch.amin),
    "reduce_sum": reduction(torch.sum),
    "reduce_sum_square": reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "reshape": reshape,
    "rsqrt": lambda x, epsilon: torch.rsqrt(x + float(epsilon)),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "silu": unary(F.silu),
    "slice_by_index": slice_by_index,
    "softmax": lambda x, axis: torch.softmax(x, int(axis)),
    "split": split,
    "squeeze": squeeze,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "upsample_nearest_neighbor": upsample_nearest,
}
