"""A `.pte` file in ExecuTorch's runtime on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...portable.runner import Operator
from ..base import Runtime
from .board.executorch_runtime import BINDINGS, ExecuTorch, tensors


class ExecuTorchRunner(ExecuTorch):
    """A program in ExecuTorch, and the time of each of its kernels."""

    def __init__(self, artifact: Path, threads: int) -> None:
        needed_by = "running a .pte file"
        import_or_explain("torch", needed_by, "android")  # first: the bindings need its libraries
        super().__init__(import_or_explain(BINDINGS, needed_by, "android"), artifact, threads)
        self.runtime = Runtime(**vars(self.runtime))

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator] | str:
        """Time of each kernel, from a second load of the program with ExecuTorch's event tracer."""
        from .profile import profile

        return profile(self._artifact, tensors(z, label), runs)
