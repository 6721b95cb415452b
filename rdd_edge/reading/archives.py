"""Archives: npz, tar and zip. Sizes are bounded before anything is unpacked, and so is what a stream expands to."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError, first_line
from .documents import read_content

MOST_MEMBERS = 10_000
MOST_TAR_BYTES = 1 << 29  # of a whole archive, unpacked: CIFAR-10 has 186 MB
MOST_RATIO = 100  # of unpacked to packed bytes, above FREE_BYTES: images compress a tenth as well
FREE_BYTES = 1 << 26
BLOCK_BYTES = 1 << 26  # of an array that is read in blocks of rows
DIGEST_BYTES = 32
BROKEN = (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, OverflowError, MemoryError,
          zlib.error, zipfile.BadZipFile, tarfile.TarError)  # fmt: skip


@contextmanager
def _broken(name: object, kind: str) -> Iterator[None]:
    """Turn what the libraries raise for a broken archive into a CorruptError; a RecursionError is a RuntimeError."""
    try:
        yield
    except BROKEN as error:
        raise CorruptError(f"{name} is not a readable {kind}: {first_line(error)}") from None


def array_names(path: Path) -> set[str]:
    """Names of the arrays in an npz file. Raises CorruptError."""
    with _broken(path, "npz file"), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def array_shape(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in an npz file, from its header. Raises CorruptError."""
    with _broken(path, "npz file"), _array(path, name) as (_, shape, dtype):
        return shape, dtype


def array_blocks(path: Path, name: str) -> Iterator[NDArray[Any]]:
    """Successive rows (n, …) of an array in an npz file, at most BLOCK_BYTES at a time. Raises CorruptError."""
    with _broken(path, "npz file"), _array(path, name) as (file, shape, dtype):
        row = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
        rows = max(1, BLOCK_BYTES // max(1, row))
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            content = file.read(count * row)
            if len(content) != count * row:
                raise EOFError(f"{name} is truncated")
            yield np.frombuffer(content, dtype).reshape(count, *shape[1:])


@contextmanager
def _array(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """An array in an npz file, positioned after its header. NumPy writes numbers in version 1 of the format alone."""
    with zipfile.ZipFile(path) as archive:
        item = archive.getinfo(f"{name}.npy")
        if item.file_size > FREE_BYTES and item.file_size > MOST_RATIO * item.compress_size:
            raise ValueError(f"{name} unpacks to {item.file_size} bytes, {MOST_RATIO} times as many as are stored")
        with archive.open(item) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{name} is not an array of numbers")
            try:
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            except Exception as error:  # NumPy parses the header as Python, whose parsers raise many types
                raise ValueError(f"the header of {name} is broken: {first_line(error)}") from None
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if (fortran and len(shape) > 1) or not shape or dtype.kind not in "iuf":
                raise ValueError(f"{name} is not an array of numbers in the order of its rows")
            if not 0 <= size <= item.file_size or min(shape) < 0:
                raise ValueError(f"{name} is truncated")
            yield file, shape, dtype


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file. Raises CorruptError."""
    with _broken(path, "npy file"):
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        return np.array(array)


def dump_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """The arrays as an npz file, uncompressed."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    return buffer.getvalue()


def load_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of `dump_arrays`, whose content is proven to be that: it is not bounded."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file.items())


@dataclass(frozen=True)
class Member:
    """An entry of a tar. `read` gives its content while the archive has not been read further."""

    name: str
    size: int
    is_file: bool
    is_folder: bool
    read: Callable[[], bytes]


class _Bounded(io.RawIOBase):
    """A stream that raises ValueError after so many bytes, whatever its compression promises."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._left = stream, most

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unpacks to more than is allowed")
        return content


def tar_members(stream: IO[bytes], name: object, most: int = MOST_TAR_BYTES) -> Iterator[Member]:
    """The entries of a tar of at most `most` bytes, in their order.  name: for messages. Raises CorruptError."""
    with _broken(name, "tar archive"), tarfile.open(fileobj=_Bounded(stream, most), mode="r|") as archive:
        for count, member in enumerate(archive):
            if count >= MOST_MEMBERS:
                raise ValueError("it has too many entries")

            def read(member: tarfile.TarInfo = member) -> bytes:
                with _broken(name, "tar archive"):
                    if not 0 <= member.size <= most:
                        raise ValueError(f"{member.name} has {member.size} bytes")
                    file = archive.extractfile(member)
                    content = b"" if file is None else file.read()
                    if len(content) != member.size:
                        raise EOFError("it is truncated")
                    return content

            yield Member(member.name, member.size, member.isreg(), member.isdir(), read)


def tar_files(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file whose name is wanted, of a tar or tar.gz. Raises CorruptError."""
    with _broken(path, "tar archive"), path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        for member in tar_members(stream, path):
            if member.is_file and wanted(member.name):
                yield member.name, member.read()


def unpack_zip(path: Path, folder: Path, prefixes: tuple[str, ...]) -> None:
    """Write the files of a zip archive whose names begin with one of `prefixes` below `folder`. Raises CorruptError.

    zipfile itself leaves out absolute paths and "..".
    """
    with _broken(path, "zip archive"), zipfile.ZipFile(path) as archive:
        names = [item.filename for item in archive.infolist() if item.filename.startswith(prefixes)]
        if len(names) > MOST_MEMBERS or sum(archive.getinfo(name).file_size for name in names) > 1 << 31:
            raise ValueError("it is too large")
        archive.extractall(folder, names)


def read_proven(path: Path) -> bytes:
    """The content of a file of `proven`. Raises MissingError, or CorruptError where it is not what was written."""
    content = read_content(path, most=1 << 32)
    if len(content) < DIGEST_BYTES or hashlib.sha256(content[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
        raise CorruptError(f"{path} is not what was written: its SHA-256 differs")
    return content[:-DIGEST_BYTES]


def proven(content: bytes) -> bytes:
    """Content with its SHA-256 after it, for `read_proven`."""
    return content + hashlib.sha256(content).digest()
