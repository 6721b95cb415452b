"""A pickle of dictionaries, lists, numbers, strings and plain integer arrays, and of nothing else.

CIFAR-10 comes in this form. No class or function of any library is ever reached: the three names that NumPy's arrays
are pickled by stand for the small classes below, which only hold what they are given.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import first_line

__all__ = ["integers", "read_plain_pickle"]


class _Dtype:
    """numpy.dtype: an integer's code, its byte order given by the state."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[iu][1248]", code):
            raise pickle.UnpicklingError(f"an array of type {code!r} is not one of integers")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.code = (order if order in "<>" else "") + self.code[-2:]


class _Array:
    """numpy.ndarray: shape, type and bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        flat = np.frombuffer(content, np.dtype(dtype.code))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    """numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")."""
    return _Array()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, by which Python 3 pickles bytes in protocol 2."""
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
    """The dictionary in `content`, its arrays as NumPy's. Raises ValueError, one clause, for anything else."""
    try:
        found = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a broken pickle raises almost any kind
        raise ValueError(first_line(error)) from None
    if not isinstance(found, dict):
        raise ValueError("it does not hold a dictionary")
    return {_text(key): value.value if isinstance(value, _Array) else value for key, value in found.items()}


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def integers(values: object) -> NDArray[np.int64]:
    """A list or array of whole numbers as (n,) int64. Raises ValueError."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError("its labels are not a list of whole numbers")
    return array.astype(np.int64)
