"""A `.pte` file in ExecuTorch's runtime on this machine."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...errors import ArtifactError, first_line
from ...portable.timing import Operator
from ..base import Runtime

__all__ = ["ExecuTorchRunner"]


class ExecuTorchRunner:
    """A program in ExecuTorch with XNNPACK. The thread pool is the process's own, so that one runner lives in it."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._runtime: Any = import_or_explain("executorch.runtime", "running a .pte file", "android").Runtime.get()
        pool: Any = import_or_explain("executorch.extension.pybindings.portable_lib", "running a .pte file", "android")
        pool._unsafe_reset_threadpool(threads)
        self._artifact = artifact
        self._program: Any = None
        self._method: Any = None
        self.runtime = Runtime(name="executorch", version=version("executorch"), backend="xnnpack")

    def load(self) -> None:
        """Read the file and prepare its method. Raises ArtifactError."""
        self._method = self._program = None  # a second load must not find the first in memory
        try:
            self._program = self._runtime.load_program(self._artifact)
            self._method = self._program.load_method("forward")
        except Exception as error:  # the bindings raise plain RuntimeErrors, and others for a file they cannot map
            raise ArtifactError(f"ExecuTorch cannot load {self._artifact}: {first_line(error)}") from None
        if self._method is None:
            raise ArtifactError(f"ExecuTorch cannot load {self._artifact}: it has no method named forward")

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """x (N, C, H, W) for z (N, C, H, W), N as exported."""
        if self._method is None:
            self.load()
        try:
            (x,) = self._method.execute(_tensors(z, label))
        except Exception as error:
            raise ArtifactError(f"ExecuTorch cannot run {self._artifact}: {first_line(error)}") from None
        result: NDArray[np.float32] = x.numpy().copy()  # the next run writes over the program's own memory
        return result

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator] | str:
        """Time of each kernel, in a second load of the program with ExecuTorch's tracer on."""
        from .profile import profile

        return profile(self._artifact, _tensors(z, label), runs)


def _tensors(z: NDArray[np.float32], label: NDArray[np.int64] | None) -> list[Any]:
    import torch

    return [torch.from_numpy(np.ascontiguousarray(value)) for value in (z, label) if value is not None]
