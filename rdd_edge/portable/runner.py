"""The interface between an artifact in its runtime and a benchmark.

Only the standard library and NumPy, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Times(NamedTuple):
    """Duration of one inference in milliseconds; the parts are None where the runtime does not time them apart."""

    latency: float  # from the input in host memory to the output in host memory
    to_device: float | None = None
    compute: float | None = None
    from_device: float | None = None


class Operator(NamedTuple):
    """One row of a profile: the fields of benchmarking.record.OperatorTime."""

    name: str
    kind: str
    milliseconds: float  # mean per inference
    backend: str | None


class Runner:
    """An artifact in its own runtime. A subclass sets `runtime` and implements `load` and `run`; the rest is optional.

    A runner lives in a child process, since a runtime can crash.
    """

    runtime: Any  # has name, version and backend
    timed = True  # False for a stand-in that says nothing about the runtime's speed: only its images are recorded
    builds = False  # whether `load` reads what `build` makes on this machine
    no_compile_cache = "the runtime keeps nothing that it compiles"  # or why it is not known; unless it builds
    any_batch = False  # whether `run` takes any number of images at once
    untracked_memory: str | None = None  # why the system does not count the runner's memory to its process, as on a GPU

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what lies below the runtime, by name, e.g. of CUDA."""
        return {}

    @property
    def device_memory_bytes(self) -> int | None:
        """Memory of a GPU that the loaded artifact takes; None where it runs on none."""
        return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the runtime has warned of, each once."""
        return ()

    def build(self) -> str | None:
        """Make what `load` reads, e.g. a TensorRT engine. Returns why nothing had to be made, or None."""
        raise NotImplementedError

    def load(self) -> None:
        """Load the artifact, or load it again. Raises ArtifactError."""
        raise NotImplementedError

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """x (N, C, H, W) for z (N, C, H, W) and label (N,), N the artifact's batch. Raises ArtifactError."""
        raise NotImplementedError

    def sample(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """The images of `run` as the device would compute them, for a runner whose `run` computes more exactly."""
        return self.run(z, label)

    def measure(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Times:
        """Time one inference by the host's clock."""
        start = time.perf_counter_ns()
        self.run(z, label)
        return Times((time.perf_counter_ns() - start) / 1e6)

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator] | str:
        """Mean time of each operator over `runs` inferences of its own, or why there is no profile.

        It may load the artifact once more, since profiling slows a runtime down.
        """
        return f"rdd-edge does not profile operators in {self.runtime.name}"

    def largest(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> dict[str, float] | None:
        """Largest magnitude of each float16 tensor, by name, for one batch; None where the runtime does not show them.

        Raises ArtifactError where one overflows.
        """
        return None
