"""Makes this process a board: libcudart is the fake one, and what a JetPack does not have cannot be imported."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from typing import Any

BARE = ("pydantic", "torch", "diffusers", "rich", "typer")
CUDA_OF = {"10.3.0": "12.6.77", "11.4.0.106": "13.5.37"}
opened: list[Any] = []
_real, _find = ctypes.CDLL, ctypes.util.find_library


class Bare:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        missing = name.split(".")[0] in BARE or (name == "tensorrt" and "FAKE_TENSORRT" not in os.environ)
        if missing:
            raise ImportError(f"{name} is not on this board")


def open_library(name: str | None, *args: Any, **kwargs: Any) -> Any:
    if name is None or "cudart" not in str(name):
        return _real(name, *args, **kwargs)
    if "FAKE_TENSORRT" not in os.environ or os.environ.get("FAKE_CUDART") == "none":
        raise OSError(f"{name}: cannot open shared object file")
    if not opened:
        from fake_cudart import Cudart

        opened.append(Cudart(CUDA_OF[os.environ["FAKE_TENSORRT"]], os.environ.get("FAKE_GPU", "Orin") or None))
    return opened[0]


sys.meta_path.insert(0, Bare())
ctypes.CDLL = open_library  # type: ignore[misc,assignment]
ctypes.util.find_library = lambda name: None if name == "cudart" else _find(name)
