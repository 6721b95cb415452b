"""Artifacts run in a child process: a native runtime that dies there becomes an ArtifactError here.

    parent                                   child: python -m rdd_edge.benchmarking.worker FOLDER
    request.json, z.npy, label.npy   ──▶     builds the runner, does the job
    progress (stage and count)       ◀──     written again and again
    outcome.json, the job's files    ◀──     last of all

Arrays cross as .npy without pickle. Errors of rdd_edge.errors cross by name and are raised again as themselves.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..bundle import Plan
from ..console import show_stage
from ..errors import ArtifactError, RddEdgeError
from ..files import storage_errors, write_bytes, write_model
from ..portable.runner import Runner
from ..schema import Frozen
from ..targets.base import ExportSpec, Runtime

__all__ = ["SERVER", "Outcome", "Request", "in_child", "run_artifact", "supervise"]

SERVER = "server"  # in place of a target's name: the student itself in PyTorch
WATCHED = 4  # batches in which a runner that can look inside an artifact does so
STALL_SECONDS = 600.0  # without any progress; a first load may compile for minutes


class Request(Frozen):
    """What a child is asked to do."""

    job: Literal["run", "bench"]
    target: str
    artifact: str  # absolute path; of the checkpoint for SERVER
    spec: ExportSpec
    threads: int
    plan: Plan | None = None  # of a bench


class Outcome(Frozen):
    """How a child ended. "none": no runtime of the target exists on this machine, and `message` says why."""

    status: Literal["done", "none", "error"]
    error: str = ""  # name of a class in rdd_edge.errors
    message: str = ""


def run_artifact(
    target: str, artifact: Path, spec: ExportSpec, threads: int, z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> NDArray[np.float32] | None:
    """x (N, C, H, W) of an artifact for z (N, C, H, W) and label (N,), any N; None where nothing here can run it.

    Raises ArtifactError, naming artifact and runtime, where the artifact does not load, dies, stalls, or gives values
    that are not finite.
    """
    with tempfile.TemporaryDirectory(prefix="rdd-edge-") as name:
        folder = Path(name)
        np.save(folder / "z.npy", z, allow_pickle=False)
        if label is not None:
            np.save(folder / "label.npy", label, allow_pickle=False)
        request = Request(job="run", target=target, artifact=str(artifact.resolve()), spec=spec, threads=threads)
        if in_child(request, folder).status == "none":
            return None
        x: NDArray[np.float32] = np.load(folder / "x.npy", allow_pickle=False)
        return x


def in_child(request: Request, folder: Path, stall_seconds: float = STALL_SECONDS) -> Outcome:
    """Run a request in a child; its files are left in `folder`. Returns an outcome that is done or none."""
    write_model(folder / "request.json", request)
    command = [sys.executable, "-m", "rdd_edge.benchmarking.worker", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(request.threads)}
    code = supervise(command, environment, folder, stall_seconds)
    outcome = _outcome(folder)
    if outcome is None or code is None:
        raise ArtifactError(_death(request, folder, code, stall_seconds))
    if outcome.status == "error":
        raise _error_class(outcome.error)(outcome.message)
    return outcome


def supervise(command: list[str], environment: dict[str, str], folder: Path, stall_seconds: float) -> int | None:
    """Wait for a command, its output kept in folder/output; its exit code (negative: a signal), None if it stalled.

    The child holds the other end of a pipe as its standard input and ends when this process does.
    """
    seen, since = ("", 0), time.monotonic()
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
                    if now != seen:
                        seen, since = now, time.monotonic()
                        show_stage(*seen)
                if time.monotonic() - since > stall_seconds:
                    return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin:
                process.stdin.close()


class Reporter:
    """The child's side of `progress`: a new stage at once, counts at most ten times a second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stage, self._next = folder, "", 0.0

    def __call__(self, stage: str, done: int) -> None:
        if stage == self._stage and time.monotonic() < self._next:
            return
        self._stage, self._next = stage, time.monotonic() + 0.1
        beside = self._folder / "progress.new"
        beside.write_text(f"{stage} {done}")
        beside.replace(self._folder / "progress")


def _progress(folder: Path) -> tuple[str, int]:
    try:
        stage, done = (folder / "progress").read_text().split()
    except FileNotFoundError:
        return "", 0
    return stage, int(done)


def _outcome(folder: Path) -> Outcome | None:
    path = folder / "outcome.json"
    return Outcome.model_validate_json(path.read_bytes()) if path.is_file() else None


def _error_class(name: str) -> type[RddEdgeError]:
    kind = getattr(errors, name) if name in errors.__all__ else ArtifactError
    return kind if issubclass(kind, RddEdgeError) else ArtifactError


def _death(request: Request, folder: Path, code: int | None, stall_seconds: float) -> str:
    """A sentence for a child that ended without an outcome: what, in which runtime, at which stage, by what."""
    path = folder / "runtime.json"
    runtime = Runtime.model_validate_json(path.read_bytes()) if path.is_file() else None
    name = f"{runtime.name} {runtime.version}" if runtime else f"the {request.target} runtime"
    stage = {"load": "while loading", "": "before loading"}.get(_progress(folder)[0], "while running")
    where = f"{name} {{}} {stage} {request.artifact}"
    if code is None:
        return where.format(f"made no progress for {stall_seconds:g} s") + ": it was ended"
    if code >= 0:
        return where.format(f"ended its process (exit code {code})") + _last_line(folder)
    kind = signal.Signals(-code).name
    if kind == "SIGKILL":
        return where.format("was killed (SIGKILL)") + ": most often the machine ran out of memory"
    if kind == "SIGABRT":
        return where.format("aborted (SIGABRT)") + _last_line(folder)
    return where.format(f"crashed ({kind})")


def _last_line(folder: Path) -> str:
    """What a runtime printed last, which for an abort is its reason."""
    text = (folder / "output").read_bytes()[-4096:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


# ---- the child ----


def _runner(request: Request) -> tuple[Runner | None, str]:
    """The runner, or None and why there is none."""
    artifact = Path(request.artifact)
    if request.target == SERVER:
        from .server import StudentRunner

        return StudentRunner(artifact, request.spec, request.threads), ""
    from ..targets import load_target

    target = load_target(request.target)
    runner = target.runner(artifact, request.spec, request.threads)
    return runner, target.cannot_run(request.spec.precision) if runner is None else ""


def _work(folder: Path) -> Outcome:
    from ..portable.timing import run_batches
    from .facts import bench_runner  # here, since a parent has no use for it

    request = Request.model_validate_json((folder / "request.json").read_bytes())
    report = Reporter(folder)
    runner, reason = _runner(request)
    if runner is None:
        return Outcome(status="none", message=reason)
    write_model(folder / "runtime.json", runner.runtime)
    if request.job == "bench":
        assert request.plan is not None
        bench_runner(runner, request.spec, request.plan, folder, report)
        return Outcome(status="done")
    z = np.load(folder / "z.npy", allow_pickle=False)
    label = np.load(folder / "label.npy", allow_pickle=False) if (folder / "label.npy").is_file() else None
    report("load", 0)
    runner.load()
    np.save(folder / "x.npy", run_batches(runner, request.spec.input_shape, z, label, report), allow_pickle=False)
    if largest := _largest(runner, request.spec, z, label):
        write_bytes(folder / "largest.json", json.dumps(largest).encode())
    return Outcome(status="done")


def _largest(
    runner: Runner, spec: ExportSpec, z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> dict[str, float]:
    """The largest magnitude of each float16 tensor over a few batches; the runner raises where one overflows."""
    batch, largest = spec.input_shape[0], dict[str, float]()
    for start in range(0, min(len(z), WATCHED * batch) - batch + 1, batch):
        rows = slice(start, start + batch)
        for name, value in (runner.largest(z[rows], None if label is None else label[rows]) or {}).items():
            largest[name] = max(value, largest.get(name, 0.0))
    return largest


def _explain(request: Path, error: Exception) -> Outcome:
    if isinstance(error, RddEdgeError):
        return Outcome(status="error", error=type(error).__name__, message=str(error))
    asked = Request.model_validate_json(request.read_bytes())
    reason = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
    message = f"{asked.artifact} does not run as a {asked.target} artifact: {type(error).__name__}: {reason}"
    return Outcome(status="error", error="ArtifactError", message=message)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent's end of the pipe closes
    os._exit(1)


def main(folder: Path) -> None:
    """Do the request of `folder`, write the outcome, and leave without the teardown in which runtimes also crash."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with storage_errors(folder):
            outcome = _work(folder)
    except Exception as error:
        outcome = _explain(folder / "request.json", error)
    write_model(folder / "outcome.json", outcome)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
