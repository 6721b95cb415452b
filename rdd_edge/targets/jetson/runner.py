"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ...errors import ArtifactError, first_line
from ...portable.timing import Operator
from ..base import Runtime
from ..overflow import refuse_overflow
from .harness.ort_profile import profile

__all__ = ["OnnxRunner"]

PROVIDER = "CPUExecutionProvider"


class OnnxRunner:
    """A graph in ONNX Runtime.

    Its CPU kernels have no float16: it computes such nodes in float32 and leaves out the rounding between them, so an
    overflow does not show in the images. `largest` is there to find it.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        self._ort: Any = import_or_explain("onnxruntime", "running an ONNX graph", "jetson")
        self._artifact, self._threads = artifact, threads
        self._session: Any = None
        self._watch: tuple[Any, list[str]] | None = None
        self.runtime = Runtime(name="onnxruntime", version=self._ort.__version__, backend=PROVIDER)

    def load(self) -> None:
        self._session = self._open(str(self._artifact))

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if self._session is None:
            self.load()
        (x,) = self._outputs(self._session, None, z, label)
        return x

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator]:
        """Mean time of every node that ONNX Runtime's optimizer left, in a session of its own."""
        return profile(self._ort, self._artifact, self._options(), [PROVIDER], _feeds(self._session, z, label), runs)

    def largest(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> dict[str, float]:
        """Of each float16 tensor, the largest magnitude for these inputs. Raises ArtifactError for an overflow."""
        if self._watch is None:
            proto, names = _watched(self._artifact)
            self._watch = self._open(proto), names
        session, names = self._watch
        values = self._outputs(session, names, z, label) if names else []
        largest = {name: _magnitude(value) for name, value in zip(names, values, strict=True)}
        refuse_overflow(self._artifact, largest)
        return largest

    def _open(self, model: str | bytes) -> Any:
        try:
            return self._ort.InferenceSession(model, self._options(), providers=[PROVIDER])
        except Exception as error:  # each of ONNX Runtime's errors is a class of its own, under Exception itself
            raise ArtifactError(f"ONNX Runtime cannot load {self._artifact}: {first_line(error)}") from None

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its warnings are for the authors of kernels
        return options

    def _outputs(self, session: Any, names: list[str] | None, z: Any, label: Any) -> list[NDArray[Any]]:
        try:
            found: list[NDArray[Any]] = session.run(names, _feeds(session, z, label))
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime cannot run {self._artifact}: {first_line(error)}") from None
        return found


def _feeds(session: Any, z: Any, label: Any) -> dict[str, Any]:
    names = [value.name for value in session.get_inputs()]
    return dict(zip(names, [z] if label is None else [z, label], strict=True))


def _watched(path: Path) -> tuple[bytes, list[str]]:
    """The graph with every float16 result an output, and their names in the order in which they are computed."""
    onnx = import_or_explain("onnx", "looking into an ONNX graph", "jetson")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    half = {v.name: v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [name for node in model.graph.node for name in node.output if name in half and name not in constants]
    model.graph.output.extend(half[name] for name in names)
    return model.SerializeToString(), names


def _magnitude(value: NDArray[Any]) -> float:
    largest = float(np.abs(value).max(initial=0))
    return largest if largest == largest else float("inf")
