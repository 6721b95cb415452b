"""ONNX Runtime on the CPU of a board or of the host, and the time of each node from its profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rdd_edge.errors import ArtifactError, first_line
from rdd_edge.portable.runner import Operator, Runner

PROVIDER = "CPUExecutionProvider"


def session_options(ort: Any, threads: int = 0) -> Any:
    """SessionOptions without warnings, which are meant for kernel authors.  threads: 0 for one per core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    return options


def open_session(ort: Any, model: str | bytes, options: Any) -> Any:
    """An InferenceSession from the path of a file or from a serialized graph."""
    return ort.InferenceSession(model, options, providers=[PROVIDER])


class OnnxRuntime(Runner):
    """A graph on the CPU. It runs on any machine; its times say nothing about a GPU.

    ort: the onnxruntime module, which each caller imports with its own error message.
    """

    def __init__(self, ort: Any, artifact: Path, threads: int) -> None:
        self._ort, self._artifact, self._threads = ort, artifact, threads
        self._session: Any = None
        self.runtime = SimpleNamespace(name="onnxruntime", version=ort.__version__, backend=PROVIDER)

    def load(self) -> None:
        self._session = None  # frees the first load before the second
        self._session = self._open(str(self._artifact))

    def run(self, z: Any, label: Any) -> Any:
        if self._session is None:
            self.load()
        (x,) = self._outputs(self._session, None, z, label)
        return x

    def profile(self, z: Any, label: Any, runs: int) -> list[Operator]:
        """Mean time of every node of the optimized graph, in a session of its own."""
        with tempfile.TemporaryDirectory(prefix="rdd-edge-") as folder:
            options = session_options(self._ort, self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = open_session(self._ort, str(self._artifact), options)
            for _ in range(runs + 1):  # the first one warms up
                session.run(None, _feeds(session, z, label))
            events = json.loads(Path(session.end_profiling()).read_text())
        return nodes(events, runs)

    def _open(self, model: str | bytes, *, optimize: bool = True) -> Any:
        options = session_options(self._ort, self._threads)
        if not optimize:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return open_session(self._ort, model, options)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            raise ArtifactError(f"ONNX Runtime cannot load {self._artifact}: {first_line(error)}") from None

    def _outputs(self, session: Any, names: list[str] | None, z: Any, label: Any) -> Any:
        try:
            return session.run(names, _feeds(session, z, label))
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime cannot run {self._artifact}: {first_line(error)}") from None


def _feeds(session: Any, z: Any, label: Any) -> dict[str, Any]:
    names = [value.name for value in session.get_inputs()]
    return dict(zip(names, [z] if label is None else [z, label], strict=True))


def nodes(events: list[dict[str, Any]], runs: int) -> list[Operator]:
    """The kernels of the last `runs` inferences in a trace, in the order in which they first ran."""
    durations: dict[tuple[str, str, str | None], list[float]] = defaultdict(list)
    for event in events:
        name, details = str(event.get("name")), event.get("args", {})
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            key = (name.removesuffix("_kernel_time"), str(details.get("op_name")), details.get("provider"))
            durations[key].append(event["dur"] / 1000.0)
    return [
        Operator(name or kind, kind, sum(times[-runs:]) / runs, backend)
        for (name, kind, backend), times in durations.items()
    ]
