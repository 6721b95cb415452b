"""A CUDA runtime without a GPU: device memory that nobody may touch, streams that work when they are waited for.

It has the functions of cuda_runtime_api.h of the recorded release and checks that ctypes was told their types. What it
refuses it refuses with CUDA's codes (driver_types.h).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INVALID_VALUE, NO_DEVICE, INVALID_HANDLE, NOT_READY, ILLEGAL_ADDRESS, CAPTURING = 1, 100, 400, 600, 700, 900
TEXTS = {
    INVALID_VALUE: b"invalid argument",
    NO_DEVICE: b"no CUDA-capable device is detected",
    INVALID_HANDLE: b"invalid resource handle",
    NOT_READY: b"device not ready",
    ILLEGAL_ADDRESS: b"an illegal memory access was encountered",
    CAPTURING: b"operation not permitted when stream is capturing",
}
WIDTHS = {"size_t": 8, "int": 4, "unsigned int": 4, "unsigned long long": 8}
Work = Callable[[], int]  # what a stream does later; its code


@dataclass
class Stream:
    pending: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None


@dataclass
class Event:
    seconds: float | None = None


class Cudart:
    """In place of ctypes.CDLL("libcudart.so")."""

    def __init__(self, version: str, gpu: str | None) -> None:
        recorded = json.loads((Path(__file__).parent / "recorded" / f"cudart-{version}.json").read_text())
        self._declared = recorded["functions"]
        self._gpu, self._version = gpu, version
        self._handles = itertools.count(0x7F00_0000_1000, 0x1000)
        self.device: dict[int, bytearray] = {}
        self.host: dict[int, Any] = {}
        self.freed: list[Any] = []
        self.objects: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Function:
        if name not in self._declared:
            raise AttributeError(f"undefined symbol: {name}")
        if name not in type(self).__dict__ and f"do_{name}" not in type(self).__dict__:
            raise NotImplementedError(f"{name} is not part of this fake")
        found = Function(name, self._declared[name], getattr(self, f"do_{name}"))
        setattr(self, name, found)
        return found

    # ---- what the stream does ----

    def stream(self, handle: int | None) -> Stream | None:
        found = self.objects.get(handle or 0)
        return found if isinstance(found, Stream) else None

    def put(self, handle: int | None, work: Work) -> int:
        stream = self.stream(handle)
        if stream is None:
            return INVALID_HANDLE
        (stream.pending if stream.captured is None else stream.captured).append(work)
        return 0

    def new(self, thing: Any) -> int:
        handle = next(self._handles)
        self.objects[handle] = thing
        return handle

    def capturing(self) -> bool:
        return any(isinstance(thing, Stream) and thing.captured is not None for thing in self.objects.values())

    def region(self, address: int | None, size: int) -> memoryview | None:
        """The bytes at a device or host address, None where they are not allocated or too few."""
        for start, content in [*self.device.items(), *self.host.items()]:
            if address is not None and start <= address and address + size <= start + len(content):
                return memoryview(content).cast("B")[address - start : address - start + size]
        return None

    # ---- the functions ----

    def do_cudaGetErrorString(self, code: int) -> bytes:
        return TEXTS.get(code, b"unrecognized error code")

    def do_cudaGetDeviceProperties(self, properties: int, device: int) -> int:
        if self._gpu is None or device:
            return NO_DEVICE
        ctypes.memmove(properties, self._gpu.encode() + b"\0", len(self._gpu) + 1)
        return 0

    def do_cudaDeviceGetAttribute(self, pointer: Any, attribute: int, device: int) -> int:
        told = {16: int(os.environ.get("FAKE_PROCESSORS", "8")), 75: 8, 76: 7}  # driver_types.h, enum cudaDeviceAttr
        if attribute not in told or device:
            return INVALID_VALUE
        pointer.value = told[attribute]
        return 0

    def do_cudaRuntimeGetVersion(self, pointer: Any) -> int:
        major, minor, _ = self._version.split(".")
        pointer.value = 1000 * int(major) + 10 * int(minor)
        return 0

    def do_cudaDriverGetVersion(self, pointer: Any) -> int:
        return self.do_cudaRuntimeGetVersion(pointer)

    def do_cudaMemGetInfo(self, free: Any, total: Any) -> int:
        total.value = 1 << 33
        free.value = total.value - sum(map(len, self.device.values()))
        return 0

    def do_cudaMalloc(self, pointer: Any, size: int) -> int:
        if self.capturing():
            return CAPTURING
        # An address that no process has: who reads it without cudaMemcpy dies
        address = 0x5000_0000_0000 + next(self._handles)
        self.device[address] = bytearray(os.urandom(size))
        pointer.value = address
        return 0

    def do_cudaFree(self, pointer: int) -> int:
        return 0 if self.device.pop(pointer, None) is not None else INVALID_VALUE

    def do_cudaMallocHost(self, pointer: Any, size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        pointer.value = ctypes.addressof(memory)
        self.host[pointer.value] = memory
        return 0

    def do_cudaFreeHost(self, pointer: int) -> int:
        memory = self.host.pop(pointer, None)
        self.freed.append(memory)  # and kept: a program that writes there would die before a copy can tell it
        return INVALID_VALUE if memory is None else 0

    def do_cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> int:
        ends = {1: (self.device, self.host), 2: (self.host, self.device)}.get(kind)
        if ends is None:
            return INVALID_VALUE

        def copy() -> int:
            to, taken = self.region(target, size), self.region(source, size)
            if to is None or taken is None or not self._inside(target, ends[0]) or not self._inside(source, ends[1]):
                return ILLEGAL_ADDRESS
            to[:] = taken
            return 0

        return self.put(stream, copy)

    @staticmethod
    def _inside(address: int, regions: dict[int, Any]) -> bool:
        return any(start <= address < start + len(content) for start, content in regions.items())

    def do_cudaStreamCreateWithFlags(self, pointer: Any, flags: int) -> int:
        pointer.value = self.new(Stream())
        return 0 if flags in (0, 1) else INVALID_VALUE

    def do_cudaStreamSynchronize(self, handle: int) -> int:
        stream = self.stream(handle)
        if stream is None:
            return INVALID_HANDLE
        if stream.captured is not None:
            return CAPTURING
        pending, stream.pending = stream.pending, []
        for work in pending:
            if code := work():
                return code
        return 0

    def do_cudaStreamDestroy(self, handle: int) -> int:
        return 0 if self.objects.pop(handle, None) is not None else INVALID_HANDLE

    def do_cudaStreamBeginCapture(self, handle: int, mode: int) -> int:
        stream = self.stream(handle)
        if stream is None or mode not in (0, 1, 2):
            return INVALID_VALUE
        if stream.captured is not None:
            return CAPTURING
        stream.captured = []
        return 0

    def do_cudaStreamEndCapture(self, handle: int, graph: Any) -> int:
        stream = self.stream(handle)
        if stream is None or stream.captured is None:
            return INVALID_VALUE
        graph.value, stream.captured = self.new(tuple(stream.captured)), None
        return 0

    def do_cudaGraphInstantiateWithFlags(self, ready: Any, graph: int, flags: int) -> int:
        found = self.objects.get(graph)
        if not isinstance(found, tuple):
            return INVALID_VALUE
        ready.value = self.new(list(found))
        return 0

    def do_cudaGraphLaunch(self, ready: int, stream: int) -> int:
        """What was captured happens again, and nothing that was put on the stream before or after."""
        work = self.objects.get(ready)
        if not isinstance(work, list):
            return INVALID_VALUE
        codes = [self.put(stream, one) for one in work]
        return next((code for code in codes if code), 0)

    def do_cudaGraphDestroy(self, graph: int) -> int:
        return 0 if isinstance(self.objects.pop(graph, None), tuple) else INVALID_VALUE

    def do_cudaGraphExecDestroy(self, ready: int) -> int:
        return 0 if isinstance(self.objects.pop(ready, None), list) else INVALID_VALUE

    def do_cudaEventCreate(self, pointer: Any) -> int:
        pointer.value = self.new(Event())
        return 0

    def do_cudaEventRecord(self, handle: int, stream: int) -> int:
        event = self.objects.get(handle)
        if not isinstance(event, Event):
            return INVALID_HANDLE
        event.seconds = None

        def stamp() -> int:
            event.seconds = time.perf_counter()
            return 0

        return self.put(stream, stamp)

    def do_cudaEventElapsedTime(self, milliseconds: Any, start: int, end: int) -> int:
        events = [self.objects.get(handle) for handle in (start, end)]
        if not all(isinstance(event, Event) for event in events):
            return INVALID_HANDLE
        if any(event.seconds is None for event in events):
            return NOT_READY
        milliseconds.value = (events[1].seconds - events[0].seconds) * 1000.0
        return 0

    def do_cudaEventDestroy(self, handle: int) -> int:
        return 0 if self.objects.pop(handle, None) is not None else INVALID_HANDLE


class Function:
    """A function of a ctypes library. It wants argtypes: without them a pointer is cut to 32 bits."""

    def __init__(self, name: str, declared: dict[str, Any], do: Callable[..., Any]) -> None:
        self._name, self._declared, self._do = name, declared, do
        self.argtypes: Any = None
        self.restype: Any = None

    def __call__(self, *values: Any) -> Any:
        wanted = [re.sub(r"\w+$", "", one).strip() for one in self._declared["arguments"].split(", ")]
        where = f"{self._name}, cuda_runtime_api.h line {self._declared['line']}"
        assert self.argtypes is not None, f"{where}: argtypes are not set"
        assert len(self.argtypes) == len(values) == len(wanted), f"{where}: takes {wanted}"
        given = []
        for kind, told, value in zip(wanted, self.argtypes, values, strict=True):
            assert ctypes.sizeof(told) == width(kind), f"{where}: {told} is no {kind}"
            pointed = getattr(told.from_param(value), "_obj", None)  # of byref(); from_param refuses a wrong type
            given.append(pointed if isinstance(pointed, ctypes._SimpleCData) else value)
        result = ctypes.c_char_p if self._declared["returns"].startswith("const char") else ctypes.c_int
        assert self.restype is result, f"{where}: restype is {self.restype}"
        return self._do(*given)


def width(kind: str) -> int:
    """Bytes of a C type: handles are pointers, enumerations ints."""
    if kind.startswith("enum ") or kind == "cudaError_t":
        return 4
    return WIDTHS.get(kind, 8)
