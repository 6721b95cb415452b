"""TensorRT without a GPU, in the words of one release: FAKE_TENSORRT names it, as 10.3.0 or 11.4.0.106.

Signatures, enumerations and properties are those that record.py read out of NVIDIA's compiled bindings of that release
(python/src/infer/pyCore.cpp, python/src/parsers/pyOnnx.cpp); a call that they would not take is a TypeError here too.
An engine is the ONNX graph behind a header, and ONNX Runtime does its work when the stream is waited for.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from fake_cudart import ILLEGAL_ADDRESS
from pybind import enforce, enumeration

__version__ = os.environ["FAKE_TENSORRT"]
RECORD = json.loads((Path(__file__).parent / "recorded" / f"tensorrt-{__version__}.json").read_text())
KINDS: dict[str, type] = {}
MAGIC, CACHE_MAGIC = b"fake engine\n", b"fake timing cache\n"
bound = enforce(RECORD, KINDS)

for _name, _members in RECORD["enums"].items():
    globals()[_name] = enumeration(_name, _members)
# Networks of TensorRT 11 are strongly typed, asked or not
STRONG = RECORD["enums"]["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"]


def cudart() -> Any:
    """The library that the program opened through ctypes."""
    from sitecustomize import opened

    assert opened, "TensorRT was used before libcudart was opened"
    return opened[0]


class ILogger:
    Severity = enumeration("ILogger.Severity", RECORD["severity"])

    def __init__(self) -> None:
        object.__setattr__(self, "_ready", True)

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


KINDS["ILogger"] = ILogger


def _tell(logger: ILogger, text: str, severity: str = "ERROR") -> None:
    assert getattr(logger, "_ready", False), "a subclass of ILogger must call its __init__"
    logger.log(getattr(ILogger.Severity, severity), text)


class IHostMemory(bytearray):
    @property
    def nbytes(self) -> int:
        return len(self)


class IProfiler:
    def __init__(self) -> None:
        self._ready = True


KINDS["IProfiler"] = IProfiler


@bound
class INetworkDefinition:
    def __init__(self, strong: bool, logger: ILogger) -> None:
        self._strong, self._logger, self._graph = strong, logger, b""


@bound
class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(CACHE_MAGIC + __version__.encode())


@bound
class IBuilderConfig:
    def __init__(self) -> None:
        self._verbosity, self._cache = globals()["ProfilingVerbosity"].LAYER_NAMES_ONLY, None

    @property
    def profiling_verbosity(self) -> Any:
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, value: Any) -> None:
        self._verbosity = value

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache | None:
        content = bytes(serialized_timing_cache)
        return ITimingCache(content) if not content or content.startswith(CACHE_MAGIC) else None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return ignore_mismatch or not cache._content or cache._content == CACHE_MAGIC + __version__.encode()

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def set_flag(self, flag: Any) -> None:
        return None


@bound
class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        members = RECORD["enums"]["NetworkDefinitionCreationFlag"].values()
        if flags & ~sum(1 << value for value in members):
            _tell(self._logger, f"IBuilder::createNetworkV2: Error Code 3: unknown flags {flags:#x}")
            return None
        return INetworkDefinition(__version__.startswith("11.") or bool(flags & 1 << STRONG), self._logger)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if not network._strong:
            _tell(self._logger, "the harness builds strongly typed networks alone")
            return None
        if b"unbuildable" in network._graph:
            _tell(self._logger, "[optimizer.cpp::computeCosts::4051] Error Code 10: Internal Error\n(Could not find")
            _tell(self._logger, "and a second line that only repeats it")
            return None
        for _ in range(2):
            _tell(self._logger, "[TRT] Weights [name=w] are\nsubnormal \x1b[31min float16", "WARNING")
        _tell(self._logger, "[MemUsageChange] Init CUDA", "INFO")
        about = {"version": __version__, "detailed": config._verbosity.name == "DETAILED"}
        return IHostMemory(MAGIC + json.dumps(about).encode() + b"\n" + network._graph)


@bound
class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


@bound
class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, []

    def parse(self, model: Any, path: str | None = None) -> bool:
        import onnx

        try:
            onnx.load_model_from_string(bytes(model))
        except Exception as error:
            self._errors.append(f"Failed to parse the ONNX model: {type(error).__name__}")
            return False
        self._network._graph = bytes(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._errors[index])


@bound
class EngineInspector:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:
        layers = [
            {"Name": name, "LayerType": kind} if self._engine._about["detailed"] else name
            for name, kind in self._engine._layers
        ]
        return json.dumps({"Layers": layers, "Bindings": []}) if format.name == "JSON" else str(layers)


@bound
class ICudaEngine:
    def __init__(self, about: dict[str, Any], graph: bytes, logger: ILogger) -> None:
        import onnx

        self._about, self._graph, self._logger = about, graph, logger
        model = onnx.load_model_from_string(graph)
        self._tensors = {}
        for mode, values in (("INPUT", model.graph.input), ("OUTPUT", model.graph.output)):
            for value in values:
                told = value.type.tensor_type
                dtype = onnx.helper.tensor_dtype_to_np_dtype(told.elem_type)
                shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in told.shape.dim)
                self._tensors[value.name] = (mode, np.dtype(dtype), shape)
        self._layers = [(node.name or node.op_type, f"fake {node.op_type}") for node in model.graph.node]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(globals()["TensorIOMode"], self._tensors[name][0])

    def get_tensor_dtype(self, name: str) -> Any:
        names = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32", "int64": "INT64", "bool": "BOOL"}
        return getattr(globals()["DataType"], names[self._tensors[name][1].name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][2]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)


@bound
class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self._engine, self._addresses, self._profiler = engine, {}, None
        self._session = onnxruntime.InferenceSession(engine._graph, options, providers=["CPUExecutionProvider"])

    @property
    def profiler(self) -> Any:
        return self._profiler

    @profiler.setter
    def profiler(self, value: Any) -> None:
        if not isinstance(value, IProfiler) or not getattr(value, "_ready", False):
            raise TypeError("profiler: incompatible function arguments: an IProfiler whose __init__ was called")
        self._profiler = value

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors:
            _tell(self._engine._logger, f"IExecutionContext::setTensorAddress: Error Code 3: no tensor named {name}")
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        for name in self._engine._tensors:
            if not self._addresses.get(name):
                text = f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error (address of {name} is not set)"
                _tell(self._engine._logger, text)
                return False
        addresses = dict(self._addresses)  # a captured graph keeps those of its capture
        return cudart().put(stream_handle, lambda: self._work(addresses)) == 0

    def _work(self, addresses: dict[str, int]) -> int:
        feeds, target = {}, None
        for name, (mode, dtype, shape) in self._engine._tensors.items():
            size = int(np.prod(shape)) * dtype.itemsize
            inside = addresses[name] in cudart().device
            memory = cudart().region(addresses[name], size) if inside else None
            if memory is None:
                return ILLEGAL_ADDRESS
            if mode == "INPUT":
                feeds[name] = np.frombuffer(memory, dtype).reshape(shape)
            else:
                target = memory
        (result,) = self._session.run(None, feeds)
        target[:] = np.ascontiguousarray(result).tobytes()
        if self._profiler is not None:
            for name, _ in self._engine._layers:
                self._profiler.report_layer_time(name, 0.25)
        return 0


@bound
class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        content = bytes(serialized_engine)
        head, _, graph = content.removeprefix(MAGIC).partition(b"\n")
        if not content.startswith(MAGIC):
            _tell(
                self._logger, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magicTag assertion failed)"
            )
            return None
        about = json.loads(head)
        if about["version"] != __version__:
            _tell(
                self._logger,
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Version tag does not match)",
            )
            return None
        return ICudaEngine(about, graph, self._logger)
