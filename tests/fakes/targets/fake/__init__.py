"""A target whose artifact is a word: what its runner does when it is run."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from rdd_edge.errors import ArtifactError
from rdd_edge.targets.base import ExportSpec, Runtime, Target


class FakeRunner:
    runtime = Runtime(name="fakert", version="7.0", backend=None)

    def __init__(self, word: str, spec: ExportSpec) -> None:
        self.word, self.spec = word, spec
        self.timed = word != "evaluator"

    def load(self) -> None:
        if self.word == "die-loading":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.word == "bad-file":
            raise ArtifactError("fakert does not read this file")
        if self.word == "bug":
            raise RuntimeError("tensor arena too small")

    def run(self, z, label):
        assert z.shape == self.spec.input_shape
        if self.word == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.word == "abort":
            print("Check failed: arena", file=sys.stderr, flush=True)
            os.abort()
        if self.word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.word == "exit":
            os._exit(3)
        if self.word == "stall":
            time.sleep(60)
        if self.word == "nan":
            return np.full_like(z, np.nan)
        if self.word == "shape":
            return z[:, :, 1:]
        x = np.tanh(z)
        return x if label is None else x * (label / 10.0).astype(np.float32)[:, None, None, None]


class FakeTarget(Target):
    name = "fake"
    precisions = ("fp32",)
    quantized = ()

    def __init__(self) -> None:
        self.parity_db = {"fp32": 80.0}
        self.backends = {"fakert": self.precisions}
        self.rewrites = {"fp32": ()}

    def require(self) -> None:
        return None

    def runner(self, artifact: Path, spec: ExportSpec, threads: int):
        word = artifact.read_text()
        return None if word == "nowhere" else FakeRunner(word, spec)

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...] | None:
        return None

    def runtime_here(self) -> str | None:
        return "fakert 7.0"

    def cannot_run(self, precision: str) -> str:
        return "fakert runs on fake machines only"


target = FakeTarget()
