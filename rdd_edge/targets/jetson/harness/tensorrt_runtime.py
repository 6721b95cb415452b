"""TensorRT on a board: an engine, its tensors in device memory, and its work on a stream captured in a CUDA graph.

A latency is what computing takes by CUDA's own events; copies from and to the host are timed beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_runtime import Buffer, Cuda  # type: ignore[import-not-found]  # beside this file, which is no package
from engine import Messages, build, import_tensorrt, place  # type: ignore[import-not-found]
from numpy.typing import NDArray

from rdd_edge.errors import ArtifactError
from rdd_edge.portable.runner import Operator, Runner, Times

__all__ = ["TensorRT"]


class TensorRT(Runner):
    """An ONNX file in TensorRT."""

    builds = True
    untracked_memory = "the system does not count memory of the GPU, which holds engine and tensors, to a process"

    def __init__(self, artifact: Path, engines: Path) -> None:
        self._trt = import_tensorrt()
        self._messages, self._cuda = Messages(self._trt), Cuda()
        self._artifact, self._file = artifact, place(engines, artifact, self._trt.__version__, self._cuda.gpu)
        self._engine: Any = None
        self._context: Any = None
        self._graph: int | None = None
        self._warm = False
        self._inputs: list[Buffer] = []
        self._output: Buffer | None = None
        self._marks = [self._cuda.event() for _ in range(4)]
        backend = f"{self._cuda.gpu}, CUDA graph"
        self.runtime = SimpleNamespace(name="tensorrt", version=self._trt.__version__, backend=backend)

    def build(self) -> str | None:
        if self._file.is_file():
            return "an earlier run on this board built the engine, which was found in its cache"
        build(self._trt, self._messages, self._artifact, self._cuda.gpu, self._file)
        return None

    def load(self) -> None:
        """Deserialize the engine and give it memory. Raises ArtifactError."""
        self._unload()
        runtime = self._trt.Runtime(self._messages.logger)
        self._engine = runtime.deserialize_cuda_engine(self._file.read_bytes())
        if self._engine is None:
            raise ArtifactError(
                f"TensorRT cannot load {self._file}: {self._messages.reason()}; remove it to build anew"
            )
        self._allocate()
        self._context = self._new_context()

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        x, _ = self._infer(z, label)
        return x

    def measure(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Times:
        _, times = self._infer(z, label)
        return times

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator] | str:
        """Mean time of every layer, without the CUDA graph, which hides them from the profiler."""
        base, times = self._trt.IProfiler, dict[str, float]()

        class Profiler(base):  # type: ignore[misc,valid-type]  # known at run time only
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times[layer_name] = times.get(layer_name, 0.0) + ms

        context, profiler = self._new_context(), Profiler()
        self._stage(z, label)
        self._copy_in()
        self._enqueue(context)  # once before it counts
        self._cuda.wait()
        context.profiler = profiler
        for _ in range(runs):
            self._enqueue(context)
            self._cuda.wait()
        kinds = self._kinds()
        found = [Operator(name, kinds.get(name, "layer"), total / runs, "tensorrt") for name, total in times.items()]
        return found or "TensorRT's profiler told of no layer"

    def _infer(self, z: Any, label: Any) -> tuple[NDArray[np.float32], Times]:
        cuda, (begin, ready, computed, end) = self._cuda, self._marks
        assert self._output is not None
        if self._warm and self._graph is None:
            self._capture()
        self._stage(z, label)
        cuda.mark(begin)
        self._copy_in()
        cuda.mark(ready)
        if self._graph is None:
            self._enqueue(self._context)
        else:
            cuda.launch(self._graph)
        cuda.mark(computed)
        cuda.copy_out(self._output)
        cuda.mark(end)
        cuda.wait()
        self._warm = True
        times = Times(cuda.between(ready, computed), cuda.between(begin, ready), cuda.between(computed, end))
        return self._output.array.astype(np.float32), times

    def _stage(self, z: Any, label: Any) -> None:
        """Put the inputs into pinned memory, a label in the type that the engine takes: int64, or another's int32."""
        values = [z] if label is None else [z, label]
        if len(values) != len(self._inputs):
            raise ArtifactError(f"{self._artifact} takes {len(self._inputs)} inputs, not {len(values)}")
        for buffer, value in zip(self._inputs, values, strict=True):
            if value.shape != buffer.array.shape:
                raise ArtifactError(f"{self._artifact} takes an input of shape {buffer.array.shape}, not {value.shape}")
            buffer.array[...] = value

    def _copy_in(self) -> None:
        for buffer in self._inputs:
            self._cuda.copy_in(buffer)

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._cuda.stream):
            raise ArtifactError(f"TensorRT cannot run {self._artifact}: {self._messages.reason()}")

    def _capture(self) -> None:
        """Record the engine's work once; TensorRT asks for an enqueue before the one that is captured."""
        self._cuda.begin_capture()
        self._enqueue(self._context)
        self._graph = self._cuda.end_capture()

    def _tensors(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _allocate(self) -> None:
        """Buffers of every tensor, the inputs in the graph's order: the noise, then the label."""
        for name in self._tensors():
            shape = tuple(self._engine.get_tensor_shape(name))
            dtype = self._dtype(name)
            if min(shape, default=1) < 0:
                raise ArtifactError(f"{self._artifact} leaves the shape of {name} open: export it with a fixed batch")
            buffer = self._cuda.buffer(shape, dtype)
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                self._inputs.append(buffer)
            elif self._output is None:
                self._output = buffer
            else:
                raise ArtifactError(f"{self._artifact} has more than one output")

    def _dtype(self, name: str) -> Any:
        kinds = self._trt.DataType
        known = {kinds.FLOAT: np.float32, kinds.HALF: np.float16, kinds.INT32: np.int32, kinds.INT64: np.int64}
        told = self._engine.get_tensor_dtype(name)
        if told not in known:
            raise ArtifactError(f"{self._artifact} wants {name} as {told}, which no bundle has")
        return known[told]

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise ArtifactError(f"TensorRT cannot prepare {self._artifact} to run: {self._messages.reason()}")
        assert self._output is not None
        inputs = iter(self._inputs)
        for name in self._tensors():
            is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            buffer = next(inputs) if is_input else self._output
            if not context.set_tensor_address(name, buffer.device):
                raise ArtifactError(f"TensorRT refuses memory for {name}: {self._messages.reason()}")
        return context

    def _kinds(self) -> dict[str, str]:
        """By the name of a layer, its type, from TensorRT's inspector."""
        inspector = self._engine.create_engine_inspector()
        told = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        layers = [layer for layer in told.get("Layers", []) if isinstance(layer, dict)]  # names alone: no types
        return {str(layer.get("Name")): str(layer.get("LayerType", "layer")) for layer in layers}

    def _unload(self) -> None:
        """Nothing of an earlier load is left, so that the next one is timed whole."""
        if self._graph is not None:
            self._cuda.drop(self._graph)
        for buffer in [*self._inputs, *([self._output] if self._output else [])]:
            self._cuda.free(buffer)
        self._context = self._engine = self._graph = self._output = None
        self._inputs, self._warm = [], False
