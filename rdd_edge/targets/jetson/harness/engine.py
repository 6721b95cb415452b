"""An engine of an ONNX graph, built on the board that runs it and kept there.

    FOLDER/<SHA-256 of the graph>-<TensorRT>-<GPU>.engine    good for nothing but these three
    FOLDER/<TensorRT>-<GPU>.timing                           what TensorRT measured of its kernels, for the next build

TensorRT 10.3 to 11: networks are strongly typed, so that precision is what the file says. 11 has no other kind, and
lost EXPLICIT_BATCH, the precision flags and calibration; nothing here uses them. All else is alike in both.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from rdd_edge.errors import ArtifactError, DependencyError

__all__ = ["Messages", "build", "import_tensorrt", "place"]

LEAST, MOST = (10, 3), 11
GRAPH_ERRORS = 3  # of a graph that does not parse, named in the sentence


def import_tensorrt() -> Any:
    """The bindings. Raises DependencyError without them, or for a version that this harness does not know."""
    try:
        import tensorrt
    except ImportError:
        raise DependencyError(
            "--runtime tensorrt needs TensorRT's Python bindings, which JetPack has: "
            "apt-get install python3-libnvinfer, or take --runtime onnxruntime"
        ) from None
    version = tuple(int(part) for part in re.findall(r"\d+", tensorrt.__version__)[:2])
    if version < LEAST or version[0] > MOST:
        raise DependencyError(f"TensorRT {tensorrt.__version__} is not between 10.3 and 11, which this harness knows")
    return tensorrt


class Messages:
    """What TensorRT says while it works: it returns None for a failure and tells its logger why."""

    def __init__(self, tensorrt: Any) -> None:
        serious = (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR)
        errors: list[str] = []

        class Logger(tensorrt.ILogger):  # type: ignore[misc]  # known at run time only
            def __init__(self) -> None:
                tensorrt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in serious:
                    errors.append(msg)

        self.logger, self._errors = Logger(), errors

    def reason(self) -> str:
        """The first error since the last call, as one line: those that follow come of it."""
        first = " ".join(self._errors[0].split())[:300] if self._errors else "it gives no reason"
        self._errors.clear()
        return first


def place(folder: Path, artifact: Path, version: str, gpu: str) -> Path:
    """Where the engine of a graph is kept."""
    return folder / f"{hashlib.sha256(artifact.read_bytes()).hexdigest()}-{_machine(version, gpu)}.engine"


def build(tensorrt: Any, messages: Messages, artifact: Path, gpu: str, engine: Path) -> None:
    """Build `engine`, and put it in place whole. Raises ArtifactError in TensorRT's own words."""
    what = f"TensorRT {tensorrt.__version__}"
    builder = tensorrt.Builder(messages.logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, messages.logger)
    if not parser.parse(artifact.read_bytes()):
        found = [parser.get_error(i).desc() for i in range(min(parser.num_errors, GRAPH_ERRORS))]
        raise ArtifactError(
            f"{what} does not read {artifact}: {' '.join('; '.join(found).split()) or messages.reason()}"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # types of layers, told at no cost to their speed
    timing = engine.parent / f"{_machine(tensorrt.__version__, gpu)}.timing"
    known = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    if known is None or not config.set_timing_cache(known, False):
        raise ArtifactError(f"{what} does not read its timing cache {timing}: remove it")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(f"{what} cannot build an engine of {artifact}: {messages.reason()}")
    _write(timing, config.get_timing_cache().serialize())
    _write(engine, plan)


def _machine(version: str, gpu: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", f"{version} {gpu}")


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(memoryview(content))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
