"""A saved package as a list of operations, its constants read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....dependencies import import_or_explain
from ....errors import ArtifactError
from .blob import BITS, BlobFile, unpack

__all__ = ["Constant", "Name", "Operation", "Package", "read_package"]

Constant = Tensor | str  # integers int64, floats float32 (holding what their own type can hold)

_NUMPY = {
    "BOOL": "?", "FLOAT16": "<f2", "FLOAT32": "<f4", "FLOAT64": "<f8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


class Name(str):
    """The name of an earlier result, told apart from a string constant."""

    __slots__ = ()


@dataclass(frozen=True)
class Operation:
    """One operation. An input is earlier results' names or constants given in place; several where it is a list."""

    type: str
    inputs: dict[str, tuple[Name | Constant, ...]]
    outputs: tuple[tuple[str, str], ...]  # name, declared type
    ranks: tuple[int, ...]  # number of dimensions of each output


@dataclass(frozen=True)
class Package:
    path: Path
    inputs: dict[str, str]  # name → declared type
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]


def read_package(path: Path) -> Package:
    """Read an `.mlpackage`. Raises ArtifactError where it is no ML program, truncated, or of an unknown kind."""
    data = path / "Data" / "com.apple.CoreML"
    model_pb2 = import_or_explain("coremltools.proto.Model_pb2", "reading a Core ML package", "ios")
    message = import_or_explain("google.protobuf.message", "reading a Core ML package", "ios")
    model = model_pb2.Model()
    try:
        model.ParseFromString((data / "model.mlmodel").read_bytes())
        function = model.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not a Core ML package: it has no model.mlmodel") from None
    except message.DecodeError:
        raise ArtifactError(f"{path} does not load: its model.mlmodel is truncated or damaged") from None
    if not block.operations:
        raise ArtifactError(f"{path} is not an ML program: it was made for iOS 14 or earlier, or is damaged")
    reader = _Reader(path, BlobFile(data / "weights" / "weight.bin"), model_pb2)
    operations = tuple(reader.operation(op) for op in block.operations)
    inputs = {value.name: reader.type_name(value.type) for value in function.inputs}
    return Package(path, inputs, tuple(block.outputs), operations)


class _Reader:
    """Turns the messages of one package into operations and constants."""

    def __init__(self, path: Path, blobs: BlobFile, model_pb2: Any) -> None:
        self._path, self._blobs = path, blobs
        mil_pb2 = import_or_explain("coremltools.proto.MIL_pb2", "reading a Core ML package", "ios")
        self._types: dict[int, str] = {number: name for name, number in mil_pb2.DataType.items()}

    def type_name(self, value_type: Any) -> str:
        return self._types[value_type.tensorType.dataType]

    def operation(self, op: Any) -> Operation:
        inputs = {name: tuple(self._binding(b) for b in argument.arguments) for name, argument in op.inputs.items()}
        # `const` and the iOS 17 forms of compressed weights keep theirs in attributes instead.
        inputs |= {name: (self._constant(value),) for name, value in op.attributes.items() if name != "name"}
        outputs = tuple((value.name, self.type_name(value.type)) for value in op.outputs)
        return Operation(op.type, inputs, outputs, tuple(int(value.type.tensorType.rank) for value in op.outputs))

    def _binding(self, binding: Any) -> Name | Constant:
        if binding.WhichOneof("binding") == "name":
            return Name(binding.name)
        return self._constant(binding.value)

    def _constant(self, value: Any) -> Constant:
        kind = self.type_name(value.type)
        shape = [int(d.constant.size) for d in value.type.tensorType.dimensions]
        if kind == "STRING":
            strings = value.immediateValue.tensor.strings.values
            return str(strings[0]) if strings else ""
        if value.WhichOneof("value") == "blobFileValue":
            return self._array(self._blobs.read(value.blobFileValue.offset), kind, shape)
        return self._immediate(value.immediateValue.tensor, kind, shape)

    def _immediate(self, tensor: Any, kind: str, shape: list[int]) -> Tensor:
        field = tensor.WhichOneof("value")
        if field is None:  # protobuf leaves out a list that is empty
            return torch.zeros(shape, dtype=torch.int64)
        values = getattr(tensor, field).values
        if field == "bytes":
            return self._array(values, kind, shape)
        return _widen(np.asarray(values).reshape(shape))

    def _array(self, content: bytes, kind: str, shape: list[int]) -> Tensor:
        count = int(np.prod(shape, dtype=np.int64))
        try:
            if kind in BITS:
                values = unpack(content, BITS[kind], count).astype(np.int64)
                return torch.from_numpy((values ^ 8) - 8 if kind == "INT4" else values).reshape(shape)
            return _widen(np.frombuffer(content, _NUMPY[kind], count).reshape(shape))
        except (ValueError, KeyError):
            raise ArtifactError(f"{self._path} holds a constant of type {kind} whose data do not fit {shape}") from None


def _widen(array: Any) -> Tensor:
    """float16 and float32 → float32, integers → int64, booleans as they are."""
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array.astype(bool if array.dtype.kind == "b" else np.int64))
