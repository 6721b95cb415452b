"""The runtimes a board may have, each behind load() and run(), imported only when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdd_edge.errors import ArtifactError, DependencyError

__all__ = ["RUNTIMES", "OnnxRuntime", "Runtime"]


@dataclass(frozen=True)
class Runtime:
    name: str
    version: str
    backend: str | None


class OnnxRuntime:
    """ONNX Runtime on the CPU: any machine can run it, and it says nothing of a GPU's speed."""

    def __init__(self, artifact: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise DependencyError("--runtime onnxruntime needs onnxruntime: pip install onnxruntime") from None
        self._ort, self._artifact, self._threads = onnxruntime, artifact, threads
        self._session: Any = None
        self.runtime = Runtime("onnxruntime", onnxruntime.__version__, "CPUExecutionProvider")

    def load(self) -> None:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 4  # its warnings are for the authors of kernels
        try:
            self._session = self._ort.InferenceSession(str(self._artifact), options, providers=[self.runtime.backend])
        except Exception as error:  # each of ONNX Runtime's errors is a class of its own, under Exception itself
            raise ArtifactError(f"ONNX Runtime cannot load {self._artifact}: {_first_line(error)}") from None

    def run(self, z: Any, label: Any) -> Any:
        names = [value.name for value in self._session.get_inputs()]
        try:
            return self._session.run(None, dict(zip(names, [z] if label is None else [z, label], strict=True)))[0]
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime cannot run {self._artifact}: {_first_line(error)}") from None


RUNTIMES = {"onnxruntime": OnnxRuntime}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
