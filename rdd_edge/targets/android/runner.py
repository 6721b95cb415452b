"""A `.pte` file in ExecuTorch's runtime on this machine."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...errors import ArtifactError, first_line
from ...portable.runner import Operator, Runner
from ..base import Runtime


class ExecuTorchRunner(Runner):
    """A program in ExecuTorch with XNNPACK. Use one runner per process, because the process has one thread pool."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._runtime: Any = import_or_explain("executorch.runtime", "running a .pte file", "android").Runtime.get()
        pool: Any = import_or_explain("executorch.extension.pybindings.portable_lib", "running a .pte file", "android")
        pool._unsafe_reset_threadpool(threads)
        self._artifact = artifact
        self._program: Any = None
        self._method: Any = None
        self.runtime = Runtime(name="executorch", version=version("executorch"), backend="xnnpack")

    def load(self) -> None:
        self._method = self._program = None  # frees the first load before the second
        try:
            self._program = self._runtime.load_program(self._artifact)
            self._method = self._program.load_method("forward")
        except Exception as error:  # RuntimeError, and others for a file that cannot be mapped
            raise ArtifactError(f"ExecuTorch cannot load {self._artifact}: {first_line(error)}") from None
        if self._method is None:
            raise ArtifactError(f"ExecuTorch cannot load {self._artifact}: it has no method named forward")

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if self._method is None:
            self.load()
        try:
            (x,) = self._method.execute(_tensors(z, label))
        except Exception as error:
            raise ArtifactError(f"ExecuTorch cannot run {self._artifact}: {first_line(error)}") from None
        result: NDArray[np.float32] = x.numpy().copy()  # the next run overwrites the program's memory
        return result

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator] | str:
        """Time of each kernel, from a second load of the program with ExecuTorch's event tracer."""
        from .profile import profile

        return profile(self._artifact, _tensors(z, label), runs)


def _tensors(z: NDArray[np.float32], label: NDArray[np.int64] | None) -> list[Any]:
    import torch

    return [torch.from_numpy(np.ascontiguousarray(value)) for value in (z, label) if value is not None]
