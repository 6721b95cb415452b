"""Files of tensors: safetensors, and pickles by torch's restricted unpickler. What they declare is checked first."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..errors import CorruptError, MissingError, first_line
from .documents import first_fault, parse_json

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_HEADER_BYTES = 10_000_000
MOST_TENSORS = 100_000
COUNTER = "num_batches_tracked"  # of batch norm, which older torch does not write and inference does not read


class TensorInfo(BaseModel, frozen=True, extra="forbid"):
    """A tensor in the header of a safetensors file."""

    dtype: Annotated[str, Field(max_length=20)]  # e.g. F32, BF16, I64
    shape: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**40)], ...], Field(max_length=16)]
    data_offsets: tuple[int, int]

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("F", "BF"))


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors in a safetensors file, by name, without their values. Raises as `read_tensors` does."""
    if not os.path.isfile(path):
        raise MissingError(f"there is no {path}")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            content = file.read(min(size, MOST_HEADER_BYTES))
    except OSError as error:
        raise MissingError(f"cannot read {path}: {error.strerror or first_line(error)}") from None
    if len(content) != size:
        raise CorruptError(f"{path} is not a file of weights: it is truncated, or its header is too long")
    header = parse_json(content, f"the header of {path}")
    try:
        header.pop("__metadata__", None)
        return {name: TensorInfo.model_validate(value) for name, value in header.items()}
    except (ValidationError, AttributeError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else "its header is not an object"
        raise CorruptError(f"{path} is not a file of weights: {fault}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises MissingError, or CorruptError for any other file.

    The library checks that the tensors fill the file exactly, so that they take no more memory than its size.
    """
    from safetensors.torch import load_file

    read_header(path)
    try:
        return load_file(path)
    except Exception as error:  # the library alone runs here, and raises many types for a broken file
        raise CorruptError(f"{path} is not a file of weights: {first_line(error)}") from None


def read_weights(path: Path) -> dict[str, Any]:
    """The dictionary in a file of weights: safetensors, or a pickle by torch's restricted unpickler.

    The latter builds tensors and containers alone. Raises MissingError, or CorruptError for any other file.
    """
    import torch

    if path.suffix == ".safetensors":
        return dict(read_tensors(path))
    if not os.path.isfile(path):
        raise MissingError(f"there is no {path}")
    try:
        if zipfile.is_zipfile(path):
            _require_uncompressed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile alone run here, and raise many types for a broken file
        raise CorruptError(f"{path} is not a file of weights: {first_line(error)}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CorruptError(f"{path} is not a file of weights: it holds no tensors by name")
    return content


def require_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Any], where: object) -> None:
    """Raise CorruptError unless `tensors` has the names, shapes and kinds of `expected`, and all its values are finite.

    expected: as a network's state_dict, which may be on the meta device.  where: the file, for the message.
    """
    import torch

    needed = {name: wanted for name, wanted in expected.items() if name in tensors or not name.endswith(COUNTER)}
    if missing := next((name for name in needed if name not in tensors), None):
        raise CorruptError(f"{where} lacks the tensor {missing}")
    if unexpected := next((name for name in tensors if name not in expected), None):
        raise CorruptError(f"{where} has a tensor {unexpected} that does not belong to the network")
    for name, wanted in needed.items():
        found = tensors[name]
        if not isinstance(found, torch.Tensor) or found.layout != torch.strided or found.shape != wanted.shape:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise CorruptError(f"{where}: {name} is {shape} and should be {tuple(wanted.shape)}")
        if found.is_floating_point() != wanted.is_floating_point() or found.is_complex() or found.is_quantized:
            raise CorruptError(f"{where}: {name} is of type {found.dtype} and should be like {wanted.dtype}")
        if not torch.isfinite(found.float()).all():
            raise CorruptError(f"{where} has NaN or infinity in {name}")


def load_into(network: nn.Module, tensors: Mapping[str, Any], where: object) -> None:
    """Copy tensors into a network that they fit, as `require_fit` says."""
    require_fit(network.state_dict(), tensors, where)
    network.load_state_dict(dict(tensors))


def _require_uncompressed(path: Path) -> None:
    """Raise ValueError for an archive that torch did not write: one whose files are larger than they are stored."""
    with zipfile.ZipFile(path) as archive:
        stored = archive.infolist()
    if len(stored) > MOST_TENSORS or any(item.file_size != item.compress_size for item in stored):
        raise ValueError("it is compressed, or has too many files")


def count_values(header: Mapping[str, TensorInfo]) -> int:
    """Number of values in the tensors of a header."""
    return sum(math.prod(tensor.shape) for tensor in header.values())
