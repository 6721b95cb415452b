"""Time of each node of a graph, from ONNX Runtime's own profiler: on a board and on the host alike."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from rdd_edge.portable.timing import Operator

__all__ = ["profile"]


def profile(ort: Any, artifact: Path, options: Any, providers: list[str], feeds: Any, runs: int) -> list[Operator]:
    """Mean milliseconds per inference of every node, in a session of its own that is run once before it counts.

    ort: the module.  options: SessionOptions, which are changed.  feeds: of the graph, by name.
    """
    with tempfile.TemporaryDirectory(prefix="rdd-edge-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(artifact), options, providers=providers)
        for _ in range(runs + 1):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    return nodes(events, runs)


def nodes(events: list[dict[str, Any]], runs: int) -> list[Operator]:
    """The kernels of the last `runs` inferences among a trace's events, in the order in which they first ran."""
    durations: dict[tuple[str, str, str | None], list[float]] = defaultdict(list)
    for event in events:
        name, about = str(event.get("name")), event.get("args", {})
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            key = (name.removesuffix("_kernel_time"), str(about.get("op_name")), about.get("provider"))
            durations[key].append(event["dur"] / 1000.0)
    return [
        Operator(name or kind, kind, sum(times[-runs:]) / runs, backend)
        for (name, kind, backend), times in durations.items()
    ]
