"""The runtimes that a board may have, each imported only when it is used."""

from __future__ import annotations

from pathlib import Path

from rdd_edge.errors import DependencyError
from rdd_edge.portable.runner import Runner

__all__ = ["RUNTIMES", "open_runtime"]

RUNTIMES = ("tensorrt", "onnxruntime")  # the first is the default


def open_runtime(name: str, artifact: Path, threads: int, engines: Path) -> Runner:
    """A runner of the artifact.  engines: folder of the engines built on this machine."""
    if name == "onnxruntime":
        from onnx_runtime import OnnxRuntime  # type: ignore[import-not-found]  # beside this file, not in a package

        try:
            import onnxruntime
        except ImportError:
            raise DependencyError("--runtime onnxruntime needs onnxruntime: pip install onnxruntime") from None
        return OnnxRuntime(onnxruntime, artifact, threads)  # type: ignore[no-any-return]
    from tensorrt_runtime import TensorRT  # type: ignore[import-not-found]

    return TensorRT(artifact, engines)  # type: ignore[no-any-return]
