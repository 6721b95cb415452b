"""A saved package as coremltools reads it, after a check of the files that coremltools takes on trust."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ....dependencies import import_or_explain, silenced
from ....errors import ArtifactError, first_line
from ..silence import import_coremltools
from .operators import OPERATORS

_RECORD = struct.Struct("<IIQQQ")  # sentinel, type, bytes, start, padding bits
_SENTINEL = 0xDEADBEEF


def read_package(path: Path) -> Any:
    """The main function of an `.mlpackage`, a coremltools Function whose constants have their values.

    Raises ArtifactError for a package that is no ML program, is truncated, or has an operator without an implementation
    here.
    """
    data = path / "Data" / "com.apple.CoreML"
    model_pb2 = import_coremltools("coremltools.proto.Model_pb2")
    milproto = import_coremltools("coremltools.converters.mil.frontend.milproto")
    message = import_or_explain("google.protobuf.message", "the ios target", "ios")
    model = model_pb2.Model()
    try:
        model.ParseFromString((data / "model.mlmodel").read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not a Core ML package: it has no model.mlmodel") from None
    except message.DecodeError:
        raise ArtifactError(f"{path} does not load: its model.mlmodel is truncated or damaged") from None
    function = model.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    if not operations:
        raise ArtifactError(f"{path} is not an ML program: it was made for iOS 14 or earlier, or is damaged")
    kinds = {op.type for op in operations if not op.type.startswith("const")}  # a constant, plain or compressed
    if unknown := sorted(kinds - OPERATORS.keys()):
        raise ArtifactError(f"{path} has operators that the evaluator does not support: {', '.join(unknown)}")
    _check_weights(data / "weights" / "weight.bin", operations)
    try:
        with silenced():
            return milproto.load.load(model, model.specificationVersion, str(data / "weights")).functions["main"]
    except Exception as error:  # coremltools raises built-in exceptions of many kinds
        raise ArtifactError(f"{path} does not load: {first_line(error)}") from None


def _check_weights(path: Path, operations: Iterable[Any]) -> None:
    """Raise ArtifactError where weight.bin lacks an array of the program.

    At the offset of each array is a record, after MILBlob (BlobStorageFormat.hpp of coremltools' mlmodel).
    """
    content = np.memmap(path, mode="r") if path.is_file() and path.stat().st_size else np.zeros(0, np.uint8)
    given = [binding.value for op in operations for value in op.inputs.values() for binding in value.arguments]
    attributes = [value for op in operations for value in op.attributes.values()]
    for offset in (v.blobFileValue.offset for v in [*attributes, *given] if v.HasField("blobFileValue")):
        record = content[offset : offset + _RECORD.size].tobytes()
        if len(record) < _RECORD.size:
            raise ArtifactError(f"{path} is truncated: it ends before the record at {offset}")
        sentinel, _type, size, start, _padding = _RECORD.unpack(record)
        if sentinel != _SENTINEL:
            raise ArtifactError(f"{path} has no array at {offset}: the package's two files do not belong together")
        if start + size > len(content):
            raise ArtifactError(f"{path} is truncated: the array at {offset} ends at {start + size}")
