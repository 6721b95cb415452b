"""Quality budgets of mixed precision: a minimum PSNR to the student, or a maximum rise of the Fréchet distance.

A budget compares images of the built artifact, never of a simulation, with the student's from the same noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..metrics.frechet import frechet_distance
from ..metrics.reference import image_statistics, real_reference
from ..portable.noise import to_uint8
from ..portable.psnr import median_and_worst
from .parity import BUDGET_SEED, PARITY_SAMPLES, PARITY_SEED

if TYPE_CHECKING:
    from ..data import ImageSet
    from ..metrics.extractors import Extractor

FD_SAMPLES = 2000
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Budget(ABC):
    """The value that an artifact's images must reach.

    samples, seed: of the noise on which it is measured.
    """

    required: float
    kind: ClassVar[Literal["psnr_db", "fd_rise"]]
    samples: ClassVar[int]
    seed: ClassVar[int]
    sign: ClassVar[int]  # 1 where a larger value is better, -1 where a smaller one is

    @abstractmethod
    def against(self, student: Images) -> Callable[[Images], float]:
        """A function from an artifact's images (N, C, H, W) to the budget's value, given the student's images."""

    @abstractmethod
    def text(self, value: float) -> str:
        """A value with its unit."""

    @abstractmethod
    def allowed(self, all_int8: float) -> float:
        """The fraction of the int8 errors that may remain if errors add up.  all_int8: the value with no layer kept."""

    def met(self, value: float) -> bool:
        return self.sign * value >= self.sign * self.required

    def best(self, values: Iterable[float]) -> float:
        return self.sign * max(self.sign * value for value in values)


class PsnrBudget(Budget):
    """A median PSNR of at least `required` dB."""

    kind = "psnr_db"
    samples, seed = PARITY_SAMPLES, PARITY_SEED  # so that the manifest's parity is the budget's value
    sign = 1

    def against(self, student: Images) -> Callable[[Images], float]:
        return lambda x: median_and_worst(x, student)[0]

    def text(self, value: float) -> str:
        return f"{value:.1f} dB"

    def allowed(self, all_int8: float) -> float:
        return float(10 ** ((all_int8 - self.required) / 10))


@dataclass(frozen=True)
class FdBudget(Budget):
    """A Fréchet distance to real images at most `required` (0.02: 2%) above the student's on the same noise."""

    real: ImageSet
    extractor: Extractor
    kind = "fd_rise"
    samples, seed = FD_SAMPLES, BUDGET_SEED
    sign = -1

    def __post_init__(self) -> None:
        if not 0 <= self.required < np.inf:
            raise UsageError(f"--max-fd-rise {self.required:.1%} must be at least 0, e.g. 2%")

    def against(self, student: Images) -> Callable[[Images], float]:
        """fd / (fd of the student) - 1."""
        real = real_reference(self.real, self.extractor).statistics

        def distance(x: Images) -> float:
            return frechet_distance(image_statistics(to_uint8(x), self.extractor), real)

        reference = distance(student)
        return lambda x: distance(x) / reference - 1.0

    def text(self, value: float) -> str:
        return f"a Fréchet distance {value:+.2%} from the student's"

    def allowed(self, all_int8: float) -> float:
        return self.required / all_int8
