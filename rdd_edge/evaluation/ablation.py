"""`rdd-edge study`, an ablation (Fig. 6-9): students that differ in one setting, from one teacher and base student.

OUT/base/                 extractor, judge, teacher and base student, unless another run provides them
OUT/<vary>=<value>/       a student of half the base's steps for each value
OUT/study.{json,md,svg}   the distances, once all students are trained
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
from .comparison import evaluate_cached
from .sources import evaluation_sources

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
    """The Fréchet distance for each value of the varied setting."""

    schema_version: Literal[1] = 1
    vary: str
    steps: int = Field(ge=1)  # of the students
    metric: str
    samples: int = Field(ge=2)
    seed: UInt64
    floor: float
    floor_spread: float
    values: tuple[float, ...]
    distances: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]

    def markdown(self) -> str:
        rows = [f"| {value:g} | {distance:.3f} |" for value, distance in zip(self.values, self.distances, strict=True)]
        floor = f"real images have {self.floor:.3f} ± {self.floor_spread:.3f}"
        note = f"{self.steps}-step students, {self.samples} samples of seed {self.seed}; {floor}"
        return "\n".join([f"| {self.vary} | {self.metric} |", "|---:|---:|", *rows, "", note, ""])

    def svg(self) -> str:
        """The table as a plot, in a standalone SVG file."""
        plot = curve(self.values, self.distances, self.vary, self.metric)
        opening, rest = plot.split(">", 1)
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
    """Train a student for each value and evaluate it; finished students are not trained again.

    vary: a key of VARIED.  count, seed: the samples of the evaluation.  start_from: a training run whose extractor,
    judge, teacher and base student are used.  deadline: on the clock of time.monotonic().
    Raises UsageError for an unknown setting or an invalid value, DataError for fewer than two samples, both before any
    training.
    """
    from ..distillation.run import distill
    from ..distillation.run_folder import base_stage

    presets = [_with(preset, vary, value) for value in values]
    if len(set(values)) < 2:
        raise UsageError("--values needs at least two different values, e.g. 0.5,1,2")
    if preset.sfddm or preset.base_steps < 2:
        raise UsageError("a study varies the halving below the base student, and this preset has none")
    require_samples(count)
    base, steps = start_from or out / "base", preset.base_steps // 2
    if start_from is None:
        distill(preset, base, deadline=deadline, until=base_stage(preset))
    runs = [out / f"{vary}={value:g}" for value in values]
    for run, varied in zip(runs, presets, strict=True):
        distill(varied, run, start_from=base, deadline=deadline, until=f"student-{steps}")
    real, judge = evaluation_sources(runs[0], None, extractor)
    evaluations = [evaluate_cached(run / f"student-{steps}", steps, count, seed, real, judge) for run in runs]
    result = Study(
        vary=vary,
        steps=steps,
        metric=metric_name(judge),
        samples=count,
        seed=seed,
        floor=evaluations[0].floor,
        floor_spread=evaluations[0].floor_spread,
        values=tuple(values),
        distances=tuple(one.rows[0].distance for one in evaluations),
    )
    if not current().is_main:
        return result
    write_model(out / "study.json", result)
    write_bytes(out / "study.md", result.markdown().encode())
    write_bytes(out / "study.svg", result.svg().encode())
    return result


def _with(preset: Preset, vary: str, value: float) -> Preset:
    if vary not in VARIED:
        raise UsageError(f"--vary {vary} is not a setting that a study varies: choose from {', '.join(VARIED)}")
    return changed(preset, [f"{VARIED[vary]}={value:g}"])
