"""TensorRT on a board: an engine, its tensors in device memory, and its work captured in a CUDA graph.

A latency is the host's time from an input in host memory to the output in host memory, as in every other runtime. CUDA
events time its parts on the GPU: the copies and the computation.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_runtime import Buffer, Cuda  # type: ignore[import-not-found]  # beside this file, not in a package
from engine import Messages, board_name, build, engine_path, import_tensorrt, warnings_of  # type: ignore[import-not-found]
from numpy.typing import NDArray

from rdd_edge.errors import ArtifactError
from rdd_edge.portable.runner import Operator, Runner, Times


class TensorRT(Runner):
    """An ONNX file in TensorRT."""

    builds = True
    untracked_memory = "the engine and tensors are in GPU memory, which the system does not count for a process"

    def __init__(self, artifact: Path, engines: Path, power_mode: str | None) -> None:
        """engines: the cache folder.  power_mode: of the board, in which the engine is built; None: not known."""
        self._trt = import_tensorrt()
        self._messages, self._cuda = Messages(self._trt), Cuda()
        self._artifact = artifact
        cuda, release = self._cuda, self._trt.__version__
        gpu = (cuda.gpu, f"sm{cuda.capability}", f"{cuda.processors}sm")
        board = board_name(release, *gpu, f"cuda{cuda.version}", f"driver{cuda.driver_version}", power_mode)
        self._file, self._timing = engine_path(engines, artifact, board), engines / f"{board}.timing"
        self._free_bytes: int | None = None  # before the first load
        self._engine: Any = None
        self._context: Any = None
        self._graph: int | None = None
        self._warm = False
        self._buffers: dict[str, Buffer] = {}
        self._inputs: list[Buffer] = []  # the noise, then the label
        self._output: Buffer | None = None
        self._marks = [self._cuda.event() for _ in range(4)]
        backend = f"{self._cuda.gpu}, CUDA graph"
        self.runtime = SimpleNamespace(name="tensorrt", version=self._trt.__version__, backend=backend)

    def build(self) -> str | None:
        if (warnings := warnings_of(self._file)) is not None:
            for warning in warnings:
                self._messages.add(warning)
            return "the engine was found in the cache of this board, where an earlier run built it"
        build(self._trt, self._messages, self._artifact, self._file, self._timing)
        return None

    @property
    def versions(self) -> dict[str, str]:
        return {"cuda": self._cuda.version, "cuda driver": self._cuda.driver_version}

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._messages.warnings)

    @property
    def device_memory_bytes(self) -> int | None:
        """By how much the free memory has declined since before the first load."""
        return None if self._free_bytes is None else max(0, self._free_bytes - self._cuda.free_bytes())

    def load(self) -> None:
        """Deserialize the engine and allocate its tensors. Raises ArtifactError."""
        self._unload()
        if self._free_bytes is None:
            self._free_bytes = self._cuda.free_bytes()
        runtime = self._trt.Runtime(self._messages.logger)
        self._engine = runtime.deserialize_cuda_engine(self._file.read_bytes())
        if self._engine is None:
            reason = self._messages.reason()
            raise ArtifactError(f"TensorRT cannot load {self._file}: {reason}; remove the file to build it again")
        self._allocate()
        self._context = self._new_context()

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        return self._infer(z, label)

    def measure(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Times:
        start = time.perf_counter_ns()
        self._infer(z, label)
        latency = (time.perf_counter_ns() - start) / 1e6
        begin, ready, computed, end = self._marks
        return Times(latency, *map(self._cuda.between, (begin, ready, computed), (ready, computed, end)))

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator] | str:
        """Mean time of every layer, without the CUDA graph, which hides layers from the profiler."""
        base, times = self._trt.IProfiler, dict[str, float]()

        class Profiler(base):  # type: ignore[misc,valid-type]  # known at run time only
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times[layer_name] = times.get(layer_name, 0.0) + ms

        context, profiler = self._new_context(), Profiler()
        self._stage(z, label)
        self._copy_in()
        self._enqueue(context)  # warmup
        self._cuda.wait()
        context.profiler = profiler
        for _ in range(runs):
            self._enqueue(context)
            self._cuda.wait()
        kinds = self._kinds()
        layers = [Operator(name, kinds.get(name, "layer"), total / runs, "tensorrt") for name, total in times.items()]
        return layers or "TensorRT's profiler reported no layers"

    def _infer(self, z: Any, label: Any) -> NDArray[np.float32]:
        """The image, with an event of self._marks before and after each part of the work."""
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
        x: NDArray[np.float32] = self._output.array.astype(np.float32)
        return x

    def _stage(self, z: Any, label: Any) -> None:
        """Write the inputs to pinned memory, a label in the engine's integer type, int64 or int32."""
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
        """Capture the engine's work once; TensorRT requires an enqueue before the captured one."""
        self._cuda.begin_capture()
        self._enqueue(self._context)
        self._graph = self._cuda.end_capture()

    def _allocate(self) -> None:
        """Allocate a buffer for every tensor, in the graph's order."""
        for name in (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)):
            shape = tuple(self._engine.get_tensor_shape(name))
            dtype = self._dtype(name)
            if min(shape, default=1) < 0:
                raise ArtifactError(f"{self._artifact} has a dynamic shape for {name}: export it with a fixed batch")
            buffer = self._buffers[name] = self._cuda.buffer(shape, dtype)
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                self._inputs.append(buffer)
            elif self._output is None:
                self._output = buffer
            else:
                raise ArtifactError(f"{self._artifact} has more than one output")

    def _dtype(self, name: str) -> Any:
        kinds = self._trt.DataType
        known = {kinds.FLOAT: np.float32, kinds.HALF: np.float16, kinds.INT32: np.int32, kinds.INT64: np.int64}
        dtype = self._engine.get_tensor_dtype(name)
        if dtype not in known:
            raise ArtifactError(f"{self._artifact} has {name} as {dtype}, a type that no bundle uses")
        return known[dtype]

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise ArtifactError(f"TensorRT cannot prepare {self._artifact} to run: {self._messages.reason()}")
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.device):
                raise ArtifactError(f"TensorRT does not accept the buffer of {name}: {self._messages.reason()}")
        return context

    def _kinds(self) -> dict[str, str]:
        """Layer name → type, from TensorRT's engine inspector."""
        inspector = self._engine.create_engine_inspector()
        information = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        layers = [layer for layer in information.get("Layers", []) if isinstance(layer, dict)]  # a str is a bare name
        return {str(layer.get("Name")): str(layer.get("LayerType", "layer")) for layer in layers}

    def _unload(self) -> None:
        """Free everything of an earlier load, so that the next load is timed completely."""
        if self._graph is not None:
            self._cuda.drop(self._graph)
        for buffer in self._buffers.values():
            self._cuda.free(buffer)
        self._context = self._engine = self._graph = self._output = None
        self._buffers, self._inputs, self._warm = {}, [], False
