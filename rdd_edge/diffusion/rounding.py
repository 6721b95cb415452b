"""Weights rounded to half precision, for shipped models and for training runs that move between machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import UsageError
from ..files import write_bytes
from ..reading.tensors import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

Half = Literal["bfloat16", "float16"]


def rounded(tensors: Mapping[str, Tensor], dtype: Half) -> dict[str, Tensor]:
    """Floating-point tensors in `dtype`; integers and scalars unchanged.

    Raises UsageError for a value beyond its range.
    """
    import torch

    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    result = {}
    for name, tensor in tensors.items():
        result[name] = tensor.to(half) if tensor.is_floating_point() and tensor.dim() > 0 else tensor
        if not torch.isfinite(result[name]).all() and torch.isfinite(tensor).all():
            raise UsageError(f"{name} reaches {float(tensor.abs().max()):.3g}, too large for {dtype}: take bfloat16")
    return result


def round_file(source: Path, path: Path, dtype: Half) -> None:
    """Write a copy of a safetensors file with rounded tensors."""
    from safetensors.torch import save

    write_bytes(path, save(rounded(read_tensors(source), dtype), metadata={"format": "pt"}))
