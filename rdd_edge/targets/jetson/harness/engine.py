"""The TensorRT engine of an ONNX graph, built on the board that runs it and cached there.

    FOLDER/<SHA-256 of the graph>-<TensorRT>-<GPU>.engine    valid only for these three
    FOLDER/<TensorRT>-<GPU>.timing                           kernel timings, which speed up the next build

For TensorRT 10.3 to 11. Networks are strongly typed, so the file determines the precision. TensorRT 11 supports no
others and removed EXPLICIT_BATCH, the precision flags and calibration, none of which are used here.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from rdd_edge.errors import ArtifactError, DependencyError

OLDEST, NEWEST = (10, 3), 11
MAX_PARSER_ERRORS = 3  # in the message for a graph that TensorRT cannot parse


def import_tensorrt() -> Any:
    """The bindings. Raises DependencyError when they are missing or of an unsupported version."""
    try:
        import tensorrt
    except ImportError:
        raise DependencyError(
            "--runtime tensorrt needs TensorRT's Python bindings, which are part of JetPack: "
            "apt-get install python3-libnvinfer, or use --runtime onnxruntime"
        ) from None
    version = tuple(int(part) for part in re.findall(r"\d+", tensorrt.__version__)[:2])
    if version < OLDEST or version[0] > NEWEST:
        raise DependencyError(f"TensorRT {tensorrt.__version__} is not supported: install a version from 10.3 to 11")
    return tensorrt


class Messages:
    """The errors that TensorRT logs: its calls return None on failure and log the reason."""

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
        """The first error since the last call, as one line; later errors are its consequences."""
        first = " ".join(self._errors[0].split())[:300] if self._errors else "it gives no reason"
        self._errors.clear()
        return first


def engine_path(folder: Path, artifact: Path, version: str, gpu: str) -> Path:
    """File of a graph's engine in the cache folder."""
    return folder / f"{hashlib.sha256(artifact.read_bytes()).hexdigest()}-{_machine(version, gpu)}.engine"


def build(tensorrt: Any, messages: Messages, artifact: Path, gpu: str, engine: Path) -> None:
    """Write the file `engine` atomically. Raises ArtifactError with TensorRT's message."""
    what = f"TensorRT {tensorrt.__version__}"
    builder = tensorrt.Builder(messages.logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, messages.logger)
    if not parser.parse(artifact.read_bytes()):
        errors = "; ".join(parser.get_error(i).desc() for i in range(min(parser.num_errors, MAX_PARSER_ERRORS)))
        raise ArtifactError(f"{what} cannot read {artifact}: {' '.join(errors.split()) or messages.reason()}")
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # layer types; does not slow inference down
    timing = engine.parent / f"{_machine(tensorrt.__version__, gpu)}.timing"
    known = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    if known is None or not config.set_timing_cache(known, False):
        raise ArtifactError(f"{what} cannot read its timing cache {timing}: remove the file")
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
