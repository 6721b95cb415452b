"""The student itself in PyTorch: the reference that artifacts are compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.profiler import ProfilerActivity

from ..diffusion.checkpoint import read_checkpoint
from ..diffusion.network import one_step
from ..portable.runner import Operator, Runner
from ..targets.base import ExportSpec, Runtime


class StudentRunner(Runner):
    """A one-step checkpoint in float32, on a CUDA device where there is one.

    TF32 is off: rounding errors of artifacts are measured against this reference.
    """

    any_batch = True

    def __init__(self, checkpoint: Path, spec: ExportSpec, threads: int) -> None:
        self._checkpoint = replace(read_checkpoint(checkpoint), conversion=spec.conversion)
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        backend = f"cuda: {torch.cuda.get_device_name()}" if self.device == "cuda" else "cpu"
        self.runtime = Runtime(name="torch", version=str(torch.__version__), backend=backend)
        self._model: nn.Module | None = None

    def load(self) -> None:
        self._model = None  # frees the first load before the second
        self._model = self._checkpoint.load().to(self.device)

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        assert self._model is not None
        with torch.inference_mode():
            classes = None if label is None else torch.from_numpy(label).to(self.device)
            x = one_step(self._model, torch.from_numpy(z).to(self.device), classes)
            result: NDArray[np.float32] = x.cpu().numpy()
        return result

    def profile(self, z: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int) -> list[Operator]:
        """Mean time of each kind of ATen operator by torch.profiler, excluding the operators that it calls."""
        cuda = self.device == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        self.run(z, label)
        with torch.profiler.profile(activities=activities) as trace:
            for _ in range(runs):
                self.run(z, label)
        # On a GPU, an operator's time is that of the kernels it launched, which are events as well.
        events = [e for e in trace.key_averages() if e.device_type.name == "CPU"]
        times = {e.key: (e.self_device_time_total if cuda else e.self_cpu_time_total) / 1e3 for e in events}
        return [Operator(name, name, total / runs, self.device) for name, total in times.items() if total > 0]
