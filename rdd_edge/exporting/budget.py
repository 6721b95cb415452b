"""Quality budgets of mixed precision: a least PSNR to the student, or a largest rise of the Fréchet distance.

A budget compares images of the built artifact and of the student from the same noise, never of a simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..benchmarking.verify import PEAK
from ..errors import UsageError
from ..metrics.frechet import frechet_distance
from ..metrics.psnr import psnr_per_image
from ..metrics.reference import image_statistics, reference_statistics
from ..portable.noise import to_uint8
from .calibration import BUDGET_SEED, PARITY_SEED
from .parity import PARITY_SAMPLES

if TYPE_CHECKING:
    from ..data import ImageSet
    from ..metrics.extractors import Extractor

__all__ = ["FD_SAMPLES", "Budget", "FdBudget", "PsnrBudget"]

FD_SAMPLES = 2000
Images = NDArray[np.float32]


class Budget(Protocol):
    """A condition on an artifact's images.  samples, seed: of the noise on which it is measured."""

    @property
    def kind(self) -> Literal["psnr_db", "fd_rise"]: ...

    @property
    def samples(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def required(self) -> float: ...

    def against(self, student: Images) -> Callable[[Images], float]:
        """A function from an artifact's images (N, C, H, W) to the budget's value, given the student's images."""
        ...

    def met(self, value: float) -> bool: ...

    def better(self, a: float, b: float) -> float: ...

    def text(self, value: float) -> str:
        """A value with its unit."""
        ...

    def allowed(self, all_int8: float) -> float:
        """Fraction of the int8 errors that may remain, if errors add up, where all layers in int8 have this value."""
        ...


@dataclass(frozen=True)
class PsnrBudget:
    """A median PSNR of at least `least_db`."""

    least_db: float
    kind: Literal["psnr_db", "fd_rise"] = "psnr_db"
    samples: int = PARITY_SAMPLES  # the parity vectors, so that the manifest's parity is the budget's value
    seed: int = PARITY_SEED

    @property
    def required(self) -> float:
        return self.least_db

    def against(self, student: Images) -> Callable[[Images], float]:
        return lambda x: float(np.median(psnr_per_image(x, student, PEAK)))

    def met(self, value: float) -> bool:
        return value >= self.least_db

    def better(self, a: float, b: float) -> float:
        return max(a, b)

    def text(self, value: float) -> str:
        return f"{value:.1f} dB"

    def allowed(self, all_int8: float) -> float:
        return float(10 ** ((all_int8 - self.least_db) / 10))


@dataclass(frozen=True)
class FdBudget:
    """A Fréchet distance to real images at most `rise` (0.02: two percent) above the student's on the same noise."""

    rise: float
    real: ImageSet
    extractor: Extractor
    kind: Literal["psnr_db", "fd_rise"] = "fd_rise"
    samples: int = FD_SAMPLES
    seed: int = BUDGET_SEED

    def __post_init__(self) -> None:
        if not 0 <= self.rise < np.inf:
            raise UsageError(f"--max-fd-rise {self.rise:.1%} must be at least 0, e.g. 2%")

    @property
    def required(self) -> float:
        return self.rise

    def against(self, student: Images) -> Callable[[Images], float]:
        """fd / (fd of the student) - 1."""
        real, _ = reference_statistics(self.real, self.extractor)

        def distance(x: Images) -> float:
            return frechet_distance(image_statistics(to_uint8(x), self.extractor), real)

        reference = distance(student)
        return lambda x: distance(x) / reference - 1.0

    def met(self, value: float) -> bool:
        return value <= self.rise

    def better(self, a: float, b: float) -> float:
        return min(a, b)

    def text(self, value: float) -> str:
        return f"a Fréchet distance {value:+.2%} from the student's"

    def allowed(self, all_int8: float) -> float:
        return self.rise / all_int8
