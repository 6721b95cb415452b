"""ONNX Runtime on the host, with float16 tensors rounded as on the board."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dependencies import import_or_explain
from ..base import Runtime
from ..ranges import magnitude, refuse_overflow
from .harness.onnx_runtime import OnnxRuntime
from .rounding import rounded


class OnnxRunner(OnnxRuntime):
    """A graph in ONNX Runtime on the CPU.

    `run` and `measure` use the file itself, whose float16 nodes are computed in float32 without rounding between them.
    `sample` and `largest` round every float16 tensor.
    """

    def __init__(self, artifact: Path, threads: int) -> None:
        ort: Any = import_or_explain("onnxruntime", "running an ONNX graph", "jetson")
        super().__init__(ort, artifact, threads)
        self.runtime = Runtime(**vars(self.runtime))

    def sample(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        session, names = self._rounding
        if not names:
            return self.run(z, label)  # type: ignore[no-any-return]
        (x,) = self._outputs(session, [session.get_outputs()[0].name], z, label)
        return x  # type: ignore[no-any-return]

    def largest(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> dict[str, float]:
        session, names = self._rounding
        values = self._outputs(session, names, z, label) if names else []
        largest = {name: magnitude(value) for name, value in zip(names, values, strict=True)}
        refuse_overflow(self._artifact, largest)
        return largest

    @cached_property
    def _rounding(self) -> tuple[Any, list[str]]:
        """A session of the graph that rounds, and the tensors that it rounds, which are outputs as well."""
        onnx = import_or_explain("onnx", "reading an ONNX graph", "jetson")
        model, names = rounded(onnx.load(self._artifact))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return self._open(model.SerializeToString(), optimize=False), names
