"""MIL's operators in torch, as a U-Net needs them, after coremltools' definitions (converters/mil/mil/ops/defs).

Floating-point arguments arrive in float32 and results leave in float32; rounding is the evaluator's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ArtifactError

__all__ = ["OPERATORS"]

Inputs = dict[str, Any]  # by parameter name: a Tensor, a string, or a tuple of Tensors


def _ints(inputs: Inputs, name: str, default: list[int] | None = None) -> list[int]:
    value = inputs.get(name)
    if value is None:
        assert default is not None
        return default
    return [int(v) for v in value.reshape(-1).tolist()]


def _int(inputs: Inputs, name: str, default: int) -> int:
    return int(inputs[name]) if name in inputs else default


def _padding(inputs: Inputs, kernel: list[int], strides: list[int], dilations: list[int], size: list[int]) -> list[int]:
    """(before, after) of each spatial dimension, first dimension first."""
    kind = inputs.get("pad_type", "valid")
    if kind == "custom":
        return _ints(inputs, "pad")
    if kind == "valid":
        return [0] * (2 * len(kernel))
    pads = []
    for k, s, d, n in zip(kernel, strides, dilations, size, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small = total // 2
        pads += [small, total - small] if kind == "same" else [total - small, small]
    return pads


def conv(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    weight: Tensor = inputs["weight"]
    rank = x.ndim - 2
    strides, dilations = _ints(inputs, "strides", [1] * rank), _ints(inputs, "dilations", [1] * rank)
    pads = _padding(inputs, list(weight.shape[2:]), strides, dilations, list(x.shape[2:]))
    backwards = [
        p for d in reversed(range(rank)) for p in pads[2 * d : 2 * d + 2]
    ]  # F.pad starts at the last dimension
    function = F.conv2d if rank == 2 else F.conv1d
    groups = _int(inputs, "groups", 1)
    return function(F.pad(x, backwards), weight, inputs.get("bias"), strides, 0, dilations, groups)


def conv_transpose(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    weight: Tensor = inputs["weight"]
    rank = x.ndim - 2
    strides, dilations = _ints(inputs, "strides", [1] * rank), _ints(inputs, "dilations", [1] * rank)
    if inputs.get("pad_type", "valid") not in ("valid", "custom") or ("output_shape" in inputs and rank != 2):
        raise ArtifactError("the package has a transposed convolution whose padding the evaluator does not know")
    pads = _ints(inputs, "pad", [0] * (2 * rank)) if inputs.get("pad_type") == "custom" else [0] * (2 * rank)
    groups = _int(inputs, "groups", 1)
    whole = F.conv_transpose2d(x, weight, inputs.get("bias"), strides, 0, 0, groups, dilations)
    top, bottom, left, right = pads
    return whole[..., top : whole.shape[-2] - bottom, left : whole.shape[-1] - right]


def linear(inputs: Inputs) -> Tensor:
    return F.linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def matmul(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    y: Tensor = inputs["y"]
    x = x.transpose(-1, -2) if bool(inputs.get("transpose_x", False)) else x
    y = y.transpose(-1, -2) if bool(inputs.get("transpose_y", False)) else y
    return x @ y


def batch_norm(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    gamma, beta = inputs.get("gamma"), inputs.get("beta")
    return F.batch_norm(x, inputs["mean"], inputs["variance"], gamma, beta, False, 0.0, float(inputs["epsilon"]))


def instance_norm(inputs: Inputs) -> Tensor:
    return F.instance_norm(
        inputs["x"], None, None, inputs.get("gamma"), inputs.get("beta"), eps=float(inputs["epsilon"])
    )


def layer_norm(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    axes = _ints(inputs, "axes")
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    y: Tensor = (x - mean) / torch.sqrt(variance + float(inputs["epsilon"]))
    y = y * inputs["gamma"] if "gamma" in inputs else y
    return y + inputs["beta"] if "beta" in inputs else y


def reduction(function: Callable[..., Tensor]) -> Callable[[Inputs], Tensor]:
    def run(inputs: Inputs) -> Tensor:
        x: Tensor = inputs["x"]
        axes = _ints(inputs, "axes", list(range(x.ndim)))
        return function(x, axes, bool(inputs.get("keep_dims", False)))

    return run


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda inputs: function(inputs["x"], inputs["y"])


def unary(function: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda inputs: function(inputs["x"])


def gelu(inputs: Inputs) -> Tensor:
    mode = inputs.get("mode", "EXACT")
    x: Tensor = inputs["x"]
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def upsample_nearest(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    height, width = float(inputs.get("scale_factor_height", 1)), float(inputs.get("scale_factor_width", 1))
    if height != int(height) or width != int(width):
        raise ArtifactError("the package upsamples by a factor that is not whole, which the evaluator does not know")
    return x.repeat_interleave(int(height), -2).repeat_interleave(int(width), -1)


def pad(inputs: Inputs) -> Tensor:
    pads, mode = _ints(inputs, "pad"), inputs.get("mode", "constant")
    pairs = [pads[i : i + 2] for i in range(0, len(pads), 2)]
    backwards = [p for pair in reversed(pairs) for p in pair]
    if mode == "constant":
        return F.pad(inputs["x"], backwards, value=float(inputs.get("constant_val", 0.0)))
    return F.pad(inputs["x"], backwards, {"reflect": "reflect", "replicate": "replicate"}[mode])


def slice_by_index(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    begin, end = _ints(inputs, "begin"), _ints(inputs, "end")
    stride = _ints(inputs, "stride", [1] * x.ndim)
    masks = {name: _ints(inputs, name, [0] * x.ndim) for name in ("begin_mask", "end_mask", "squeeze_mask")}
    index: list[slice | int] = []
    for d in range(x.ndim):
        if masks["squeeze_mask"][d]:
            index.append(begin[d])
            continue
        if stride[d] < 1:
            raise ArtifactError("the package slices backwards, which the evaluator does not know")
        start = None if masks["begin_mask"][d] else begin[d]
        index.append(slice(start, None if masks["end_mask"][d] else end[d], stride[d]))
    return x[tuple(index)]


def gather(inputs: Inputs) -> Tensor:
    if _int(inputs, "batch_dims", 0):
        raise ArtifactError("the package gathers within a batch, which the evaluator does not know")
    x: Tensor = inputs["x"]
    indices, axis = inputs["indices"].long(), _int(inputs, "axis", 0)
    flat = torch.index_select(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1))
    return flat.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def split(inputs: Inputs) -> tuple[Tensor, ...]:
    x: Tensor = inputs["x"]
    axis = _int(inputs, "axis", 0)
    if "split_sizes" in inputs:
        return tuple(torch.split(x, _ints(inputs, "split_sizes"), axis))
    return tuple(torch.chunk(x, int(inputs["num_splits"]), axis))


def concat(inputs: Inputs) -> Tensor:
    if bool(inputs.get("interleave", False)):
        raise ArtifactError("the package concatenates interleaved, which the evaluator does not know")
    return torch.cat(inputs["values"], _int(inputs, "axis", 0))


def squeeze(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    return torch.squeeze(x, tuple(_ints(inputs, "axes", [d for d in range(x.ndim) if x.shape[d] == 1])))


def expand_dims(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    rank = x.ndim + len(_ints(inputs, "axes"))
    for axis in sorted(a % rank for a in _ints(inputs, "axes")):
        x = x.unsqueeze(axis)
    return x


def reshape(inputs: Inputs) -> Tensor:
    x: Tensor = inputs["x"]
    shape = [x.shape[d] if size == 0 else size for d, size in enumerate(_ints(inputs, "shape"))]
    return x.reshape(shape)


def _per_axis(inputs: Inputs, name: str) -> Tensor | float:
    value: Tensor | None = inputs.get(name)
    if value is None:
        return 0.0
    axis = _int(inputs, "axis", 0)
    return value.reshape([-1 if d == axis else 1 for d in range(inputs["input"].ndim)]) if value.ndim else value


def quantize(inputs: Inputs) -> Tensor:
    """clip(round(input / scale) + zero_point) to the range of output_dtype."""
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[inputs["output_dtype"]]
    rounded: Tensor = torch.round(inputs["input"] / _per_axis(inputs, "scale")) + _per_axis(inputs, "zero_point")
    return rounded.clamp(low, high)


def dequantize(inputs: Inputs) -> Tensor:
    """scale · (input - zero_point)."""
    integers: Tensor = inputs["input"].float()
    return (integers - _per_axis(inputs, "zero_point")) * _per_axis(inputs, "scale")


OPERATORS: dict[str, Callable[[Inputs], Tensor | tuple[Tensor, ...]]] = {
    "add": binary(torch.add),
    "batch_norm": batch_norm,
    "cast": unary(lambda x: x),  # the declared type of its result says the rest
    "clip": lambda inputs: inputs["x"].clamp(float(inputs["alpha"]), float(inputs["beta"])),
    "concat": concat,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "dequantize": dequantize,
    "equal": binary(torch.eq),
    "exp": unary(torch.exp),
    "expand_dims": expand_dims,
    "gather": gather,
    "gelu": gelu,
    "greater": binary(torch.gt),
    "greater_equal": binary(torch.ge),
    "identity": unary(lambda x: x),
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "less": binary(torch.lt),
    "less_equal": binary(torch.le),
    "linear": linear,
    "matmul": matmul,
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "mul": binary(torch.mul),
    "pad": pad,
    "pixel_shuffle": lambda inputs: F.pixel_shuffle(inputs["x"], int(inputs["upscale_factor"])),
    "pow": binary(torch.pow),
    "quantize": quantize,
    "real_div": binary(torch.div),
    "reduce_max": reduction(torch.amax),
    "reduce_mean": reduction(torch.mean),
    "reduce_min": reduction(torch.amin),
    "reduce_sum": reduction(torch.sum),
    "reduce_sum_square": reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "relu": unary(torch.relu),
    "reshape": reshape,
    "rsqrt": lambda inputs: torch.rsqrt(inputs["x"] + float(inputs.get("epsilon", 1e-12))),
    "select": lambda inputs: torch.where(inputs["cond"], inputs["a"], inputs["b"]),
    "sigmoid": unary(torch.sigmoid),
    "silu": unary(F.silu),
    "slice_by_index": slice_by_index,
    "softmax": lambda inputs: torch.softmax(inputs["x"], _int(inputs, "axis", -1)),
    "split": split,
    "sqrt": unary(torch.sqrt),
    "square": unary(torch.square),
    "squeeze": squeeze,
    "sub": binary(torch.sub),
    "tanh": unary(torch.tanh),
    "transpose": lambda inputs: inputs["x"].permute(_ints(inputs, "perm")),
    "upsample_nearest_neighbor": upsample_nearest,
}
