"""Artifacts run in a child process: a native runtime that crashes there becomes an ArtifactError here.

    this process                             child: python -m rdd_edge.benchmarking.worker FOLDER
    request.json, z.npy, label.npy   ──▶     builds the runner, runs the artifact
    progress (stage and count)       ◀──     rewritten as the work goes on
    x.npy or samples, outcome.json   ◀──     written last

Arrays cross as .npy without pickle. Errors of rdd_edge.errors cross by name and are raised again as the same class.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .. import errors
from ..bundle import Plan
from ..console import show_stage
from ..errors import ArtifactError, RddEdgeError
from ..files import write_model
from ..reading.archives import read_array
from ..reading.documents import read_model
from ..schema import Frozen
from ..targets.base import ExportSpec, Runtime
from .processes import last_line

STALL_SECONDS = 600.0  # without any progress; a first load may compile for minutes


class Request(Frozen):
    """What a child is asked to do."""

    target: str
    artifact: str  # absolute path; for SERVER, of the checkpoint
    spec: ExportSpec
    threads: int
    plan: Plan | None = None  # of a benchmark run; None: only the images of z.npy
    profiled: bool = True  # whether a benchmark run ends with a profile of the operators


class Outcome(Frozen):
    """How a child ended. "none": no runtime of the target exists on this machine, and `message` says why."""

    status: Literal["done", "none", "error"]
    error: str = ""  # name of a class in rdd_edge.errors
    message: str = ""
    measured: dict[str, Any] = Field(default={})  # of a benchmark run: the record's fields that only the child knows
    largest: dict[str, float] = Field(default={})  # as in ArtifactRun
    broken: tuple[str, ...] | None = None  # rules of the target, one clause each; None: it has no rules


@dataclass(frozen=True)
class ArtifactRun:
    """An artifact's images, and what executed it."""

    x: NDArray[np.float32]  # (N, C, H, W)
    runtime: Runtime
    largest: dict[str, float]  # largest magnitude of each float16 tensor; empty where the runtime does not show them
    rules_checked: bool  # whether the target has rules for a runtime that is not on this machine


class BrokenRules(ArtifactError):
    """An artifact that its device would refuse or run slowly.  clauses: one for each violation."""

    def __init__(self, artifact: Path, clauses: tuple[str, ...]) -> None:
        more = f", and {len(clauses) - 1} more like it" if len(clauses) > 1 else ""
        super().__init__(f"{artifact} would not run as it should on the device: {clauses[0]}{more}")
        self.clauses = clauses


def execute(
    target: str, artifact: Path, spec: ExportSpec, threads: int, z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> ArtifactRun | None:
    """Run an artifact on z (N, C, H, W) and label (N,), for any N; None where nothing on this machine can run it.

    Raises BrokenRules where the artifact breaks a rule of its target, and ArtifactError, naming artifact and runtime,
    where it does not load, crashes, stalls, overflows, or gives values that are not finite.
    """
    with tempfile.TemporaryDirectory(prefix="rdd-edge-") as name:
        folder = Path(name)
        np.save(folder / "z.npy", z, allow_pickle=False)
        if label is not None:
            np.save(folder / "label.npy", label, allow_pickle=False)
        request = Request(target=target, artifact=str(artifact.resolve()), spec=spec, threads=threads)
        outcome = in_child(request, folder)
        if outcome.broken:
            raise BrokenRules(artifact, outcome.broken)
        if outcome.status == "none":
            return None
        return ArtifactRun(
            x=read_array(folder / "x.npy"),
            runtime=read_model(folder / "runtime.json", Runtime),
            largest=outcome.largest,
            rules_checked=outcome.broken is not None,
        )


def run_artifact(
    target: str, artifact: Path, spec: ExportSpec, threads: int, z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> NDArray[np.float32] | None:
    """The images of `execute`, x (N, C, H, W)."""
    run = execute(target, artifact, spec, threads, z, label)
    return None if run is None else run.x


def in_child(request: Request, folder: Path, stall_seconds: float = STALL_SECONDS) -> Outcome:
    """Run a request in a child, which leaves its files in `folder`. The outcome is "done" or "none"; errors raise."""
    write_model(folder / "request.json", request)
    command = [sys.executable, "-m", "rdd_edge.benchmarking.worker", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(request.threads)}
    code = supervise(command, environment, folder, stall_seconds, show=request.plan is not None)
    path = folder / "outcome.json"
    if code is None or not path.is_file():
        raise ArtifactError(_death(request, folder, code, stall_seconds))
    outcome = read_model(path, Outcome)
    if outcome.status == "error":
        raise _error_class(outcome.error)(outcome.message)
    return outcome


def supervise(
    command: list[str], environment: dict[str, str], folder: Path, stall_seconds: float, *, show: bool = True
) -> int | None:
    """Wait for a command, its output kept in folder/output.

    show: report the command's stages; those of an artifact that an export runs would replace the export's own.
    Returns the exit code, negative for a signal, or None for a command that stalled and was killed. The child holds the
    other end of a pipe as its standard input, so that it can end when this process does.
    """
    progress, since = ("", 0), time.monotonic()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while True:
                try:
                    return process.wait(timeout=0.05)
                except subprocess.TimeoutExpired:
                    pass
                finally:
                    now = _progress(folder)
                    if now != progress:
                        progress, since = now, time.monotonic()
                        if show:
                            show_stage(*progress)
                if time.monotonic() - since > stall_seconds:
                    return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin:
                process.stdin.close()


def _progress(folder: Path) -> tuple[str, int]:
    try:
        stage, done = (folder / "progress").read_text().split()
    except FileNotFoundError:
        return "", 0
    return stage, int(done)


def _error_class(name: str) -> type[RddEdgeError]:
    kind = getattr(errors, name) if name in errors.__all__ else ArtifactError
    return kind if issubclass(kind, RddEdgeError) else ArtifactError


def _death(request: Request, folder: Path, code: int | None, stall_seconds: float) -> str:
    """A sentence for a child that ended without an outcome: how, in which runtime, at which stage, and why."""
    path = folder / "runtime.json"
    runtime = read_model(path, Runtime) if path.is_file() else None
    name = f"{runtime.name} {runtime.version}" if runtime else f"the {request.target} runtime"
    stage = {"load": "while loading", "": "before loading"}.get(_progress(folder)[0], "while running")
    last = last_line((folder / "output").read_bytes()[-4096:], 300)  # for an abort, its reason
    reason = f": {last}" if last else ""
    if code is None:
        what, why = f"made no progress for {stall_seconds:g} s", ": it was killed"
    elif code >= 0:
        what, why = f"ended its process (exit code {code})", reason
    elif -code == signal.SIGKILL:
        what, why = "was killed (SIGKILL)", ": most often the machine ran out of memory"
    elif -code == signal.SIGABRT:
        what, why = "aborted (SIGABRT)", reason
    else:
        what, why = f"crashed ({signal.Signals(-code).name})", ""
    return f"{name} {what} {stage} {request.artifact}{why}"
