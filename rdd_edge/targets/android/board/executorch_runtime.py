"""A `.pte` file in ExecuTorch's Python runtime with XNNPACK, on a board or on the host."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rdd_edge.errors import ArtifactError, first_line
from rdd_edge.portable.runner import Runner

# What executorch.runtime wraps. That module takes 4 s and 200 MB more, since for one class of warnings it imports the
# whole exporter.
BINDINGS = "executorch.extension.pybindings._C"


class ExecuTorch(Runner):
    """A program on the CPU. Use one runner per process, because the process has one thread pool.

    bindings: the module BINDINGS, which each caller imports with its own error message, after torch.
    """

    def __init__(self, bindings: Any, artifact: Path, threads: int) -> None:
        bindings._unsafe_reset_threadpool(threads)
        self._bindings, self._artifact = bindings, artifact
        self._program: Any = None
        self._method: Any = None
        self.runtime = SimpleNamespace(name="executorch", version=version("executorch"), backend="xnnpack")

    def load(self) -> None:
        self._method = self._program = None  # frees the first load before the second
        try:
            check = self._bindings.Verification.InternalConsistency
            self._program = self._bindings._load_program(str(self._artifact), program_verification=check)
            self._method = self._program.load_method("forward")
        except Exception as error:  # RuntimeError, and others for a file that cannot be mapped
            raise ArtifactError(f"ExecuTorch cannot load {self._artifact}: {first_line(error)}") from None
        if self._method is None:
            raise ArtifactError(f"ExecuTorch cannot load {self._artifact}: it has no method named forward")

    def run(self, z: Any, label: Any) -> Any:
        if self._method is None:
            self.load()
        try:
            (x,) = self._method(tensors(z, label))
        except Exception as error:
            raise ArtifactError(f"ExecuTorch cannot run {self._artifact}: {first_line(error)}") from None
        return x.numpy().copy()  # the next run overwrites the program's memory


def tensors(z: Any, label: Any) -> list[Any]:
    """The inputs of the program, from arrays."""
    import torch

    return [torch.from_numpy(np.ascontiguousarray(value)) for value in (z, label) if value is not None]
