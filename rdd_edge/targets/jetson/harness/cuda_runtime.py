"""The few functions of the CUDA runtime that an inference needs, through ctypes: JetPack has no Python bindings for it.

The prototypes follow cuda_runtime_api.h and are the same in CUDA 12 and 13.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rdd_edge.errors import ArtifactError, DependencyError, DeviceError

TO_DEVICE, FROM_DEVICE = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost
NON_BLOCKING = 1  # cudaStreamNonBlocking: TensorRT warns about the default stream
THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: other threads of the process may still call CUDA
# cudaDevAttrMultiProcessorCount, cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor
PROCESSORS, MAJOR, MINOR = 16, 75, 76
PROPERTIES_BYTES = 1 << 14  # more than any version's cudaDeviceProp, which begins with char name[256]
PROTOTYPES: dict[str, Sequence[Any]] = {
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMallocHost": (POINTER(c_void_p), c_size_t),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    # cudaGraphInstantiate itself takes five arguments before CUDA 12 and three in later versions
    "cudaGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaEventCreate": (POINTER(c_void_p),),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cudaEventDestroy": (c_void_p,),
}


@dataclass(frozen=True)
class Buffer:
    """One tensor in device memory, and the pinned host memory that it is copied from or to."""

    device: int
    host: int
    array: NDArray[Any]  # a view of the host memory


class Cuda:
    """A stream on the first device. Raises DependencyError without libcudart and DeviceError without a device."""

    def __init__(self) -> None:
        self._lib = _open()
        self._lib.cudaGetErrorString.argtypes, self._lib.cudaGetErrorString.restype = (c_int,), c_char_p
        for name, arguments in PROTOTYPES.items():
            function = getattr(self._lib, name)
            function.argtypes, function.restype = arguments, c_int
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        code = self._lib.cudaGetDeviceProperties(ctypes.addressof(properties), 0)
        if code:
            raise DeviceError(f"no CUDA device is available: {self._text(code)}")
        self.gpu = properties.value.decode(errors="replace")
        self.processors = self._integer("cudaDeviceGetAttribute", PROCESSORS, 0)  # streaming multiprocessors
        major, minor = (self._integer("cudaDeviceGetAttribute", one, 0) for one in (MAJOR, MINOR))
        self.capability = f"{major}.{minor}"
        self.version = _version(self._integer("cudaRuntimeGetVersion"))
        self.driver_version = _version(self._integer("cudaDriverGetVersion"))  # the newest CUDA that it supports
        self.stream = self._handle("cudaStreamCreateWithFlags", NON_BLOCKING)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library. Raises ArtifactError, with CUDA's message, unless it returns cudaSuccess."""
        code = getattr(self._lib, name)(*arguments)
        if code:
            raise ArtifactError(f"{name} failed on {self.gpu}: {self._text(code)}")

    def _text(self, code: int) -> str:
        text: bytes = self._lib.cudaGetErrorString(code)
        return f"{text.decode(errors='replace')} (CUDA error {code})"

    def _handle(self, name: str, *arguments: Any) -> int:
        handle = c_void_p()
        self.call(name, byref(handle), *arguments)
        return handle.value or 0

    def _integer(self, name: str, *arguments: Any) -> int:
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    def free_bytes(self) -> int:
        """Free memory of the GPU; on a Jetson it is the board's."""
        free, total = c_size_t(), c_size_t()
        self.call("cudaMemGetInfo", byref(free), byref(total))
        return free.value

    def buffer(self, shape: Sequence[int], dtype: DTypeLike) -> Buffer:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        host = self._handle("cudaMallocHost", size)
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host))
        return Buffer(self._handle("cudaMalloc", size), host, raw.view(dtype).reshape(shape))

    def free(self, buffer: Buffer) -> None:
        self.call("cudaFree", buffer.device)
        self.call("cudaFreeHost", buffer.host)

    def copy_in(self, buffer: Buffer) -> None:
        self.call("cudaMemcpyAsync", buffer.device, buffer.host, buffer.array.nbytes, TO_DEVICE, self.stream)

    def copy_out(self, buffer: Buffer) -> None:
        self.call("cudaMemcpyAsync", buffer.host, buffer.device, buffer.array.nbytes, FROM_DEVICE, self.stream)

    def wait(self) -> None:
        self.call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        self.call("cudaStreamBeginCapture", self.stream, THREAD_LOCAL)

    def end_capture(self) -> int:
        """The work enqueued since begin_capture, as an executable graph for `launch`."""
        captured = c_void_p()
        self.call("cudaStreamEndCapture", self.stream, byref(captured))
        graph = captured.value or 0
        ready = self._handle("cudaGraphInstantiateWithFlags", graph, 0)
        self.call("cudaGraphDestroy", graph)
        return ready

    def launch(self, graph: int) -> None:
        self.call("cudaGraphLaunch", graph, self.stream)

    def drop(self, graph: int) -> None:
        self.call("cudaGraphExecDestroy", graph)

    def event(self) -> int:
        return self._handle("cudaEventCreate")

    def mark(self, event: int) -> None:
        self.call("cudaEventRecord", event, self.stream)

    def between(self, start: int, end: int) -> float:
        """Milliseconds between two completed events."""
        elapsed = c_float()
        self.call("cudaEventElapsedTime", byref(elapsed), start, end)
        return float(elapsed.value)


def _version(number: int) -> str:
    """CUDA's version number, e.g. 12060, as 12.6."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _open() -> Any:
    """libcudart, from the loader's search path or from JetPack's folder."""
    candidates = [ctypes.util.find_library("cudart"), "libcudart.so.13", "libcudart.so.12", "libcudart.so"]
    candidates += sorted((str(path) for path in Path("/usr/local").glob("cuda*/lib64/libcudart.so*")), reverse=True)
    for candidate in filter(None, candidates):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise DependencyError("--runtime tensorrt needs libcudart: it is not on the library path or in /usr/local/cuda")
