"""Core ML's weight.bin: 64-byte records, each naming the type, size and place of one array.

Layout after MILBlob (BlobStorageFormat.hpp of coremltools' mlmodel): a header of 64 bytes (count, version 2), then for
each array a record {0xDEADBEEF, type, bytes, offset, padding bits} and, 64-byte aligned, its data, little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....errors import ArtifactError

__all__ = ["BITS", "BlobFile", "unpack"]

_SENTINEL = 0xDEADBEEF
_RECORD = struct.Struct("<IIQQQ")
# Types narrower than a byte, by their name in MIL: bits, signed.
BITS = {"UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "UINT6": 6, "INT4": 4}


class BlobFile:
    """weight.bin, memory-mapped. A package whose constants are all immediate has none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = np.memmap(path, mode="r") if path.is_file() and path.stat().st_size else np.zeros(0, np.uint8)

    def read(self, offset: int) -> bytes:
        """The data of the record at `offset`. Raises ArtifactError where there is no such record."""
        record = self._bytes[offset : offset + _RECORD.size].tobytes()
        if len(record) < _RECORD.size:
            raise ArtifactError(f"{self._path} is truncated: it ends before the record at {offset}")
        sentinel, _type, size, start, _padding = _RECORD.unpack(record)
        if sentinel != _SENTINEL:
            raise ArtifactError(
                f"{self._path} has no array at {offset}: the package's two files do not belong together"
            )
        if start + size > len(self._bytes):
            raise ArtifactError(f"{self._path} is truncated: the array at {offset} ends at {start + size}")
        return self._bytes[start : start + size].tobytes()


def unpack(packed: bytes, bits: int, count: int) -> NDArray[np.uint8]:
    """`count` unsigned numbers of `bits` bits each, the first in the lowest bits. Returns (count,)."""
    stream = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little", count=count * bits)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    values: NDArray[np.uint8] = (stream.reshape(count, bits) * weights).sum(axis=1, dtype=np.uint8)
    return values
