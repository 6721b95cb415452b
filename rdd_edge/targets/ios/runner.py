"""Core ML itself, on a Mac."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArtifactError
from ...results import Runtime
from .silence import import_coremltools, no_bars

__all__ = ["CoreMLRunner"]


class CoreMLRunner:
    """A package in Core ML, which chooses among CPU, GPU and Neural Engine as on a phone."""

    def __init__(self, artifact: Path) -> None:
        self._ct = import_coremltools()
        self._artifact, self._model = artifact, None
        self.runtime = Runtime(name="coreml", version=f"macOS {platform.mac_ver()[0]}", backend="all compute units")

    def load(self) -> None:
        try:
            with no_bars():
                self._model = self._ct.models.MLModel(str(self._artifact), compute_units=self._ct.ComputeUnit.ALL)
        except Exception as error:  # Core ML's errors arrive as bare RuntimeError and Exception
            raise ArtifactError(f"Core ML cannot load {self._artifact}: {_first_line(error)}") from None

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if self._model is None:
            self.load()
        feeds: dict[str, Any] = {"z": z}
        if label is not None:
            feeds["label"] = label.astype(np.int32)
        try:
            x: NDArray[np.float32] = self._model.predict(feeds)["x"]  # type: ignore[attr-defined]
        except Exception as error:
            raise ArtifactError(f"Core ML cannot run {self._artifact}: {_first_line(error)}") from None
        return x.astype(np.float32, copy=False)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
