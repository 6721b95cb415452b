"""ONNX Runtime on the host, with the magnitudes of the float16 tensors inside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ..base import Runtime
from ..ranges import magnitude, refuse_overflow
from .harness.onnx_runtime import OnnxRuntime


class OnnxRunner(OnnxRuntime):
    """A graph in ONNX Runtime on the CPU.

    There are no float16 CPU kernels: such nodes are computed in float32 without rounding between them, so that an
    overflow does not show in the images. `largest` finds it.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        ort: Any = import_or_explain("onnxruntime", "running an ONNX graph", "jetson")
        super().__init__(ort, artifact, threads)
        self.runtime = Runtime(**vars(self.runtime))
        self._watched: tuple[Any, list[str]] | None = None

    def largest(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> dict[str, float]:
        if self._watched is None:
            model, names = _with_half_outputs(self._artifact)
            self._watched = self._open(model), names
        session, names = self._watched
        values = self._outputs(session, names, z, label) if names else []
        largest = {name: magnitude(value) for name, value in zip(names, values, strict=True)}
        refuse_overflow(self._artifact, largest)
        return largest


def _with_half_outputs(path: Path) -> tuple[bytes, list[str]]:
    """The graph with every float16 tensor as an output, and their names in the order in which they are computed."""
    onnx = import_or_explain("onnx", "reading an ONNX graph", "jetson")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    half = {v.name: v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [name for node in model.graph.node for name in node.output if name in half and name not in constants]
    model.graph.output.extend(half[name] for name in names)
    return model.SerializeToString(), names
