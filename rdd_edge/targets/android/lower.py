"""Write model.pte: the program with its work handed to XNNPACK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ExportError
from ...files import write_bytes
from ..base import Artifact, ExportSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["lower"]


def lower(program: ExportedProgram, spec: ExportSpec, out: Path) -> Artifact:
    """model.pte in the folder `out`. Raises ExportError for a model that ExecuTorch cannot take."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from .half import to_half

    if spec.precision == "fp16":
        program = to_half(program)

    try:
        with _silent_stderr():
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = edge.to_executorch().buffer
    except Exception as error:  # each stage of the compiler has exceptions of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"ExecuTorch cannot take the model: {reason[:300]}") from error
    write_bytes(out / "model.pte", content)
    return Artifact(out / "model.pte", {name: version(name) for name in ("executorch", "torch", "torchao")})


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what the compiler's C++ writes to the process's own standard error from the user's eyes."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
