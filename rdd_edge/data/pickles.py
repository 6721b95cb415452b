"""A restricted unpickler for dictionaries, lists, numbers, strings and integer arrays: the form of CIFAR-10's files.

No class or function of any library can be reached: the names under which NumPy's arrays are pickled resolve to the
small classes below, which only store their arguments.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import first_line


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


def read_plain_pickle(content: bytes) -> dict[str, Any]:
    """The dictionary in `content`, with NumPy arrays. Raises ValueError, whose message is one clause, for others."""
    try:
        unpickled = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a broken pickle raises almost any type
        raise ValueError(first_line(error)) from None
    if not isinstance(unpickled, dict):
        raise ValueError("it is not a dictionary")
    return {text(key): value.value if isinstance(value, _Array) else value for key, value in unpickled.items()}


def text(value: object) -> str:
    """A string that Python 2 may have pickled as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def integers(values: object) -> NDArray[np.int64]:
    """A list or array of integers as (n,) int64. Raises ValueError."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError("its labels are not a list of integers")
    return array.astype(np.int64)
