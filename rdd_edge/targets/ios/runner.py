"""Core ML on a Mac; elsewhere an evaluator of the saved package."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...errors import ArtifactError, first_line
from ...portable.runner import Runner
from ..base import Runtime
from ..ranges import refuse_overflow
from .silence import COMPUTE_UNITS, import_coremltools, no_bars

if TYPE_CHECKING:
    from .evaluator import Evaluator, Run


class CoreMLRunner(Runner):
    """A package in Core ML, which chooses between CPU, GPU and Neural Engine as on a phone."""

    no_compile_cache = "Core ML does not report whether its cache had the compiled model"

    def __init__(self, artifact: Path) -> None:
        self._ct = import_coremltools()
        self._artifact, self._model = artifact, None
        self.runtime = Runtime(
            name="coreml", version=f"macOS {platform.mac_ver()[0]}", backend=f"{COMPUTE_UNITS} compute units"
        )

    def load(self) -> None:
        self._model = None  # frees the first load before the second
        try:
            with no_bars():
                units = self._ct.ComputeUnit[COMPUTE_UNITS.upper()]
                self._model = self._ct.models.MLModel(str(self._artifact), compute_units=units)
        except Exception as error:  # Core ML raises RuntimeError and Exception itself
            raise ArtifactError(f"Core ML cannot load {self._artifact}: {first_line(error)}") from None

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if self._model is None:
            self.load()
        feeds: dict[str, Any] = {"z": z}
        if label is not None:
            feeds["label"] = label.astype(np.int32)
        try:
            x: NDArray[np.float32] = self._model.predict(feeds)["x"]  # type: ignore[attr-defined]
        except Exception as error:
            raise ArtifactError(f"Core ML cannot run {self._artifact}: {first_line(error)}") from None
        return x.astype(np.float32, copy=False)


class EvaluatorRunner(Runner):
    """Evaluates the saved package with float16 rounding. Its images are valid, its times are not."""

    timed = False
    any_batch = True

    def __init__(self, artifact: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._artifact = artifact
        self._evaluator: Evaluator | None = None
        self.runtime = Runtime(name="coreml-evaluator", version=__version__, backend=f"torch {torch.__version__}")

    @property
    def function(self) -> Any:
        """The package's program, which is loaded on first use."""
        return self._loaded().function

    def load(self) -> None:
        """Read the package, unless it has been read: its times say nothing, so that a second load has no purpose."""
        self._loaded()

    def _loaded(self) -> Evaluator:
        from .evaluator import Evaluator

        self._evaluator = self._evaluator or Evaluator(self._artifact)
        return self._evaluator

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Raises ArtifactError where a tensor overflows float16, since a phone would show a black image."""
        x: NDArray[np.float32] = self._run(z, label).outputs["x"].flatten(0, 1).numpy()
        return x

    def largest(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> dict[str, float]:
        return self._run(z, label).largest

    def _run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Run:
        import torch

        evaluator = self._loaded()
        inputs: dict[str, NDArray[Any]] = {"z": z} if label is None else {"z": z, "label": label}
        batch = evaluator.function.inputs["z"].shape[0]
        runs = {name: torch.from_numpy(v.reshape(-1, batch, *v.shape[1:])) for name, v in inputs.items()}
        result = evaluator.run_many(runs)
        refuse_overflow(self._artifact, result.largest)
        return result
