"""A restricted unpickler for dictionaries, lists, numbers, strings and integer arrays: the form of CIFAR-10's files.

No class or function of any library can be reached: the names under which NumPy's arrays are pickled resolve to the
small classes below, which only store their arguments.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError, first_line
from .documents import read_content

MOST_BYTES = 1 << 28
MOST_OPCODES = 1_000_000  # a batch of CIFAR-10 has 40,000
MOST_CALLS = 64  # each may copy a string
CALLS = ("REDUCE", "BUILD")


class _Dtype:
    """In place of numpy.dtype: an integer type, with its byte order from the state."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[iu][1248]", code):
            raise pickle.UnpicklingError(f"an array of type {code!r} is not an integer array")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.code = (order if order in "<>" else "") + self.code[-2:]


class _Array:
    """In place of numpy.ndarray: shape, type and bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(raw, str | bytes):
            raise pickle.UnpicklingError("an array has no bytes")
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        flat = np.frombuffer(content, np.dtype(dtype.code))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    """In place of numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")."""
    return _Array()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """In place of _codecs.encode, with which Python 3 pickles bytes in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return _KNOWN[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a file, with NumPy arrays. Raises MissingError, or CorruptError for any other file."""
    return parse_pickle(read_content(path, MOST_BYTES), path)


def parse_pickle(content: bytes, name: object) -> dict[str, Any]:
    """The dictionary in `content`, with NumPy arrays.  name: for messages. Raises CorruptError for others."""
    try:
        _check_opcodes(content)
        unpickled = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a broken pickle raises almost any type
        raise CorruptError(f"{name} is not a pickle of a data set: {first_line(error)}") from None
    if not isinstance(unpickled, dict) or not all(isinstance(key, str | bytes) for key in unpickled):
        raise CorruptError(f"{name} is not a pickle of a data set: it is not a dictionary by name")
    return {text(key): value.value if isinstance(value, _Array) else value for key, value in unpickled.items()}


def _check_opcodes(content: bytes) -> None:
    """Raise ValueError for a pickle that would take much more memory or time than its size.

    The unpickler allocates its memo up to the largest index that the pickle gives.
    """
    calls = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        calls += opcode.name in CALLS
        index = argument if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) else 0
        if count > MOST_OPCODES or calls > MOST_CALLS or not 0 <= index <= MOST_OPCODES:
            raise ValueError("it is too complicated")


def text(value: object) -> str:
    """A string that Python 2 may have pickled as bytes. Raises ValueError for anything else."""
    if not isinstance(value, str | bytes):
        raise ValueError("a name is not a string")
    return value.decode("latin1") if isinstance(value, bytes) else value


def integers(values: object) -> NDArray[np.int64]:
    """A list or array of integers as (n,) int64. Raises ValueError."""
    is_list = isinstance(values, list) and all(type(value) is int and abs(value) < 2**63 for value in values)
    if not is_list and not (isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu"):
        raise ValueError("its labels are not a list of integers")
    return np.asarray(values, dtype=np.int64)
