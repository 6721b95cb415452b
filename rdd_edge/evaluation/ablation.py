"""The feature study (Fig. 6-9): one fold from the base step count, one setting varied, teacher and extractor shared.

OUT/base/          extractor, judge, teacher, base student, unless another run gives them
OUT/<vary>=<value>/   the fold of each value
OUT/study.{json,md,svg}   distances, once all are there
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..distillation.config import Preset
from ..distillation.presets import changed
from ..distributed import current
from ..drawing.charts import curve
from ..errors import UsageError
from ..files import write_bytes, write_model
from ..metrics.inception import metric_name
from ..schema import Frozen, UInt64
from .checkpoint import require_samples
from .comparison import evaluated
from .sources import evaluation_sources

__all__ = ["VARIED", "Study", "study"]

VARIED = {
    "tau_is": "taus.relation",
    "tau_m": "taus.memory",
    "queue": "memory.capacity",
    "v": "memory.draw",
    "alpha": "alpha",
    "beta": "beta",
    "batch": "distillation.batch",
}
STYLE = (
    "<style>text{font:11px sans-serif;fill:#444}.axis{stroke:#888}.rule{stroke:#ddd}"
    ".trend{fill:none;stroke:#2563eb;stroke-width:1.5}.point{fill:#2563eb}</style>"
)


class Study(Frozen):
    schema_version: Literal[1] = 1
    vary: str
    steps: int = Field(ge=1)  # of the students
    metric: str
    samples: int = Field(ge=2)
    seed: UInt64
    floor: float
    values: tuple[float, ...]
    distances: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]

    def markdown(self) -> str:
        rows = [f"| {value:g} | {distance:.3f} |" for value, distance in zip(self.values, self.distances, strict=True)]
        note = f"{self.steps}-step students, {self.samples} samples of seed {self.seed}, floor {self.floor:.3f}"
        return "\n".join([f"| {self.vary} | {self.metric} |", "|---:|---:|", *rows, "", note, ""])

    def svg(self) -> str:
        """The table as a plot, a file of its own."""
        drawn = str(curve(self.values, self.distances, self.vary, self.metric))
        opening, rest = drawn.split(">", 1)
        return f'{opening} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


def study(
    preset: Preset,
    vary: str,
    values: Sequence[float],
    out: Path,
    *,
    start_from: Path | None = None,
    count: int = 2000,
    seed: int = 0,
    extractor: str | None = None,
    deadline: float = math.inf,
) -> Study:
    """Train the fold once for each value and measure it; what is there already is not made again.

    start_from: a run whose extractor, judge, teacher and base student are taken.
    Raises UsageError for a setting that is not varied or a value that does not fit, DataError for fewer than two
    samples, both before any training.
    """
    from ..distillation.run import base_stage, distill

    chosen = [_with(preset, vary, value) for value in values]
    if len(set(values)) < 2:
        raise UsageError("--values needs at least two different ones, as 0.5,1,2")
    if preset.sfddm or preset.base_steps < 2:
        raise UsageError("a study varies a halving, and this preset has none below its base")
    require_samples(count)
    base, fold = start_from or out / "base", preset.base_steps // 2
    if start_from is None:
        distill(preset, base, deadline=deadline, until=base_stage(preset))
    runs = [out / f"{vary}={value:g}" for value in values]
    for run, told in zip(runs, chosen, strict=True):
        distill(told, run, start_from=base, deadline=deadline, until=f"student-{fold}")
    real, judge = evaluation_sources(runs[0], None, extractor)
    found = [evaluated(run / f"student-{fold}", fold, count, seed, real, judge) for run in runs]
    result = Study(
        vary=vary,
        steps=fold,
        metric=metric_name(judge),
        samples=count,
        seed=seed,
        floor=found[0].floor,
        values=tuple(values),
        distances=tuple(one.rows[0].distance for one in found),
    )
    if not current().is_main:
        return result
    write_model(out / "study.json", result)
    write_bytes(out / "study.md", result.markdown().encode())
    write_bytes(out / "study.svg", result.svg().encode())
    return result


def _with(preset: Preset, vary: str, value: float) -> Preset:
    if vary not in VARIED:
        raise UsageError(f"--vary {vary} is not a setting of the study: choose from {', '.join(VARIED)}")
    return changed(preset, [f"{VARIED[vary]}={value:g}"])
