"""The child process of `isolation`, in which the runtime runs: python -m rdd_edge.benchmarking.worker FOLDER"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dependencies import import_or_explain
from ..errors import RddEdgeError, first_line
from ..files import storage_errors, write_model
from ..portable.runner import Runner
from ..portable.timing import Work, run_batches, run_benchmark
from ..reading.archives import read_array
from ..reading.documents import read_model
from ..targets import load_target
from ..targets.base import ExportSpec
from .isolation import Outcome, Request
from .record import SERVER

WATCHED = 4  # batches in which the largest magnitudes of tensors are read, where the runner can


def main(folder: Path) -> None:
    """Do the request in `folder`, write the outcome, and exit without the teardown, in which some runtimes crash."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with storage_errors(folder):
            outcome = _work(folder)
    except RddEdgeError as error:
        outcome = Outcome(status="error", error=type(error).__name__, message=str(error))
    except Exception as error:
        request = read_model(folder / "request.json", Request)
        reason = f"{type(error).__name__}: {first_line(error)[:300]}"
        message = f"{request.artifact} does not run as a {request.target} artifact: {reason}"
        outcome = Outcome(status="error", error="ArtifactError", message=message)
    write_model(folder / "outcome.json", outcome)
    os._exit(0)


class ProgressFile:
    """Writes folder/progress: a new stage at once, counts at most ten times a second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stage, self._next = folder, "", 0.0

    def __call__(self, stage: str, done: int) -> None:
        if stage == self._stage and time.monotonic() < self._next:
            return
        self._stage, self._next = stage, time.monotonic() + 0.1
        beside = self._folder / "progress.new"
        beside.write_text(f"{stage} {done}")
        beside.replace(self._folder / "progress")


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent's end of the pipe closes
    os._exit(1)


def _work(folder: Path) -> Outcome:
    request = read_model(folder / "request.json", Request)
    report = ProgressFile(folder)
    runner, broken = _runner(request)
    if broken:
        return Outcome(status="done", broken=broken)
    if runner is None:
        return Outcome(status="none", message=load_target(request.target).cannot_run(request.spec.precision))
    write_model(folder / "runtime.json", runner.runtime)
    if request.plan is not None:
        work = Work.from_plan(request.spec.input_shape, request.spec.classes, request.plan.model_dump())
        measured = {"runtime": runner.runtime, **run_benchmark(runner, work, folder, report, profiled=request.profiled)}
        return Outcome(status="done", measured=measured)
    z = read_array(folder / "z.npy")
    label = read_array(folder / "label.npy") if (folder / "label.npy").is_file() else None
    report("load", 0)
    runner.load()
    np.save(folder / "x.npy", run_batches(runner, request.spec.input_shape, z, label, report), allow_pickle=False)
    return Outcome(status="done", largest=_largest(runner, request.spec, z, label), broken=broken)


def _runner(request: Request) -> tuple[Runner | None, tuple[str, ...] | None]:
    """What runs the artifact, and the rules that it breaks, which are not checked again for a benchmark run."""
    artifact = Path(request.artifact)
    if request.target == SERVER:
        import_or_explain("torch", "the server reference", "distill")
        from .server import StudentRunner

        return StudentRunner(artifact, request.spec, request.threads), None
    target = load_target(request.target)
    if request.plan is not None:
        return target.runner(artifact, request.spec, request.threads), None
    return target.checked_runner(artifact, request.spec, request.threads)


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
