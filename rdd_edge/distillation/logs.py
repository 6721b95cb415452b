"""The log of a stage: RUN/logs/<stage>.jsonl with one line per logged step, and on request TensorBoard's files.

With TensorBoard come grids of samples (see sample_grids.py), also written to RUN/logs/<stage>-<step>.png.

RUN/logs/<stage>.seconds is the training time up to the last logged step, over all resumes. It is a file of its own so
that the lines of a resumed run equal those of an uninterrupted one.
"""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dependencies import import_or_explain, silenced
from ..drawing.grid import grid_png
from ..errors import CorruptError
from ..files import storage_errors, write_bytes


class RunLog:
    """JSON lines. A resumed stage drops the lines after its saved state: those steps are repeated."""

    def __init__(self, run: Path, stage: str, done: int, tensorboard: bool) -> None:
        self.path = run / "logs" / f"{stage}.jsonl"
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = []
            if self.path.exists() and done > 0:
                kept = [line for line in self.path.read_text().splitlines() if _step_of(line) < done]
            self.path.write_text("".join(f"{line}\n" for line in kept))
        self._seconds_before, self._began = stage_seconds(run, stage), time.monotonic()
        self._board: Any = _board(run / "tensorboard" / stage, done) if tensorboard else None

    def write(self, index: int, values: dict[str, float | None]) -> None:
        with storage_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": index, **values}) + "\n")
            seconds = self._seconds_before + time.monotonic() - self._began
            self.path.with_suffix(".seconds").write_text(f"{seconds:.3f}\n")
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, index)

    def draw(self, index: int, images: NDArray[np.uint8]) -> None:
        """Write images (N, H, W, 1 or 3) as a grid."""
        from PIL import Image

        content = grid_png(images)
        write_bytes(self.path.with_name(f"{self.path.stem}-{index:08d}.png"), content)
        if self._board is not None:
            rgb = Image.open(io.BytesIO(content)).convert("RGB")  # TensorBoard does not show transparency
            self._board.add_image("samples", np.asarray(rgb), index, dataformats="HWC")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def stage_seconds(run: Path, stage: str) -> float:
    """How long a stage has trained; 0 if the file is missing, or was cut short by a kill."""
    try:
        return float((run / "logs" / f"{stage}.seconds").read_text())
    except (OSError, ValueError):
        return 0.0


def write_seconds(run: Path, stage: str, seconds: float) -> None:
    """Count time before the first step, in which the stage was measured, as training time."""
    write_bytes(run / "logs" / f"{stage}.seconds", f"{seconds:.3f}\n".encode())


def _board(folder: Path, done: int) -> Any:
    """TensorBoard's writer; its entries after step `done` are hidden. Raises DependencyError without tensorboard."""
    import_or_explain("tensorboard", "--tensorboard", "tensorboard")
    with silenced():
        from torch.utils.tensorboard import SummaryWriter
    if folder.exists() and not folder.is_dir():
        raise CorruptError(f"{folder} is not a folder: move it, --tensorboard writes there")
    with storage_errors(folder):
        return SummaryWriter(str(folder), purge_step=done)


def _step_of(line: str) -> float:
    """Step of a log line; infinity for a line that was cut short by a kill."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
