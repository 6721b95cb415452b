"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArtifactError
from ...quiet import import_or_explain
from ...results import Runtime

__all__ = ["OnnxRunner"]

PROVIDER = "CPUExecutionProvider"


class OnnxRunner:
    """A graph in ONNX Runtime. Its CPU kernels compute float16 nodes in float32 and round the results to float16."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._ort: Any = import_or_explain("onnxruntime", "running an ONNX graph", "jetson")
        self._artifact, self._threads = artifact, threads
        self._session: Any = None
        self.runtime = Runtime(name="onnxruntime", version=self._ort.__version__, backend=PROVIDER)

    def load(self) -> None:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its warnings are for the authors of kernels
        try:
            self._session = self._ort.InferenceSession(str(self._artifact), options, providers=[PROVIDER])
        except Exception as error:  # each of ONNX Runtime's errors is a class of its own, under Exception itself
            raise ArtifactError(f"ONNX Runtime cannot load {self._artifact}: {_first_line(error)}") from None

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if self._session is None:
            self.load()
        names = [value.name for value in self._session.get_inputs()]
        try:
            (x,) = self._session.run(None, dict(zip(names, [z] if label is None else [z, label], strict=True)))
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime cannot run {self._artifact}: {_first_line(error)}") from None
        result: NDArray[np.float32] = x
        return result


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
