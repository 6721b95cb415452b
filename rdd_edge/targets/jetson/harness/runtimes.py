"""The runtimes a board may have, each imported only when it is asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rdd_edge.errors import ArtifactError, DependencyError, first_line

__all__ = ["RUNTIMES", "open_runtime"]

RUNTIMES = ("tensorrt", "onnxruntime")  # the first is the board's own
PROVIDER = "CPUExecutionProvider"


def open_runtime(name: str, artifact: Path, threads: int, engines: Path) -> Any:
    """A runner of the artifact. engines: the folder in which what is built on this machine is kept."""
    if name == "onnxruntime":
        return OnnxRuntime(artifact, threads)
    from tensorrt_runtime import TensorRT  # type: ignore[import-not-found]  # beside this file, which is no package

    return TensorRT(artifact, engines)


class OnnxRuntime:
    """ONNX Runtime on the CPU: any machine can run it, and it says nothing of a GPU's speed."""

    def __init__(self, artifact: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise DependencyError("--runtime onnxruntime needs onnxruntime: pip install onnxruntime") from None
        self._ort, self._artifact, self._threads = onnxruntime, artifact, threads
        self._session: Any = None
        self.runtime = SimpleNamespace(name="onnxruntime", version=onnxruntime.__version__, backend=PROVIDER)

    def load(self) -> None:
        try:
            self._session = self._ort.InferenceSession(str(self._artifact), self._options(), providers=[PROVIDER])
        except Exception as error:  # each of ONNX Runtime's errors is a class of its own, under Exception itself
            raise ArtifactError(f"ONNX Runtime cannot load {self._artifact}: {first_line(error)}") from None

    def run(self, z: Any, label: Any) -> Any:
        try:
            return self._session.run(None, self._feeds(z, label))[0]
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime cannot run {self._artifact}: {first_line(error)}") from None

    def profile(self, z: Any, label: Any, runs: int) -> Any:
        from ort_profile import profile  # type: ignore[import-not-found]

        return profile(self._ort, self._artifact, self._options(), [PROVIDER], self._feeds(z, label), runs)

    def _feeds(self, z: Any, label: Any) -> dict[str, Any]:
        names = [value.name for value in self._session.get_inputs()]
        return dict(zip(names, [z] if label is None else [z, label], strict=True))

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 4  # its warnings are for the authors of kernels
        return options
