"""The TensorRT engine of an ONNX graph, built on the board that runs it and cached there.

    FOLDER/<SHA-256 of the graph and this file>-<board>.engine    for this board alone
    FOLDER/<SHA-256 of the graph and this file>-<board>.json      the warnings of the build
    FOLDER/<board>.timing                                         kernel timings, which speed up the next build

A board is what changes TensorRT's choice of kernels: its release, those of CUDA, the GPU with its number of
multiprocessors (CUDA calls each GPU of the Orin family "Orin"), and the power mode, which sets clocks and turns
multiprocessors off.

For TensorRT 10.3 to 11. Networks are strongly typed, so the file determines the precision. TensorRT 11 supports no
others and removed EXPLICIT_BATCH, the precision flags and calibration, none of which are used here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from rdd_edge.errors import ArtifactError, DependencyError, printable

OLDEST, NEWEST = (10, 3), 11
MAX_PARSER_ERRORS = 3  # in the message for a graph that TensorRT cannot parse
MAX_WARNINGS, MAX_WARNING_CHARACTERS = 50, 500  # in a record


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
    """What TensorRT logs: its calls return None on failure and log the reason.

    warnings: each once, in the order of their first appearance, printable.
    """

    def __init__(self, tensorrt: Any) -> None:
        serious = (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR)
        errors: list[str] = []
        self.warnings: list[str] = []
        add = self.add

        class Logger(tensorrt.ILogger):  # type: ignore[misc]  # known at run time only
            def __init__(self) -> None:
                tensorrt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in serious:
                    errors.append(msg)
                elif severity == tensorrt.ILogger.Severity.WARNING:
                    add(msg)

        self.logger, self._errors = Logger(), errors

    def add(self, warning: str) -> None:
        line = printable(" ".join(warning.split()), MAX_WARNING_CHARACTERS)
        if line not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(line)

    def reason(self) -> str:
        """The first error since the last call, as one line; later errors are its consequences."""
        first = " ".join(self._errors[0].split())[:300] if self._errors else "it gives no reason"
        self._errors.clear()
        return first


def engine_path(folder: Path, graph: Path, board: str) -> Path:
    """File of a graph's engine in the cache folder.  board: of `board_name`."""
    content = graph.read_bytes() + Path(__file__).read_bytes()  # this file has the builder's settings
    return folder / f"{hashlib.sha256(content).hexdigest()}-{board}.engine"


def board_name(*facts: object) -> str:
    """Facts about a board in a form that is fit for a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", " ".join(str(fact) for fact in facts if fact is not None))


def build(tensorrt: Any, messages: Messages, artifact: Path, engine: Path, timing: Path) -> None:
    """Write the engine of a graph, and the warnings of its build beside it. Raises ArtifactError, in TensorRT's words.

    timing: file of the kernel timings.
    """
    what = f"TensorRT {tensorrt.__version__}"
    builder = tensorrt.Builder(messages.logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, messages.logger)
    if not parser.parse(artifact.read_bytes()):
        errors = "; ".join(parser.get_error(i).desc() for i in range(min(parser.num_errors, MAX_PARSER_ERRORS)))
        raise ArtifactError(f"{what} cannot read {artifact}: {' '.join(errors.split()) or messages.reason()}")
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # layer types; does not slow inference down
    known = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    if known is None or not config.set_timing_cache(known, False):
        raise ArtifactError(f"{what} cannot read its timing cache {timing}: remove the file")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(f"{what} cannot build an engine of {artifact}: {messages.reason()}")
    _write(timing, config.get_timing_cache().serialize())
    _write(engine.with_suffix(".json"), json.dumps(messages.warnings).encode())
    _write(engine, plan)


def warnings_of(engine: Path) -> list[str] | None:
    """The warnings of a finished build; None where there is none. Raises ArtifactError for a damaged file."""
    notes = engine.with_suffix(".json")
    if not engine.is_file() or not notes.is_file():
        return None
    try:
        return [str(warning) for warning in json.loads(notes.read_text())]
    except ValueError:
        raise ArtifactError(f"{notes} is damaged: remove the file to build the engine again") from None


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
