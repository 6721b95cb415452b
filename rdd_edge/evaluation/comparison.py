"""`rdd-edge compare`: training runs as a table of method × steps, and their images from the same noise (Fig. 5)."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..data import ImageSet
from ..data.cache import cache_root
from ..diffusion.checkpoint import read_checkpoint
from ..diffusion.sampling import sample_images
from ..distributed import current, everywhere
from ..drawing.grid import save_grid
from ..errors import MissingError, UsageError
from ..files import read_model, write_bytes, write_model
from ..metrics.extractors import Extractor
from ..metrics.inception import metric_name
from ..schema import Frozen, UInt64
from .checkpoint import Evaluation, evaluate
from .sources import evaluation_sources

Number = Annotated[float, Field(allow_inf_nan=False)]
BASELINE = "ddim"  # the teacher's row


class Entry(Frozen):
    """One method in one number of steps: the distance of each of its checkpoints, in the order of the runs."""

    method: str
    steps: int = Field(ge=1)
    checkpoints: tuple[str, ...]
    distances: tuple[Number, ...] = Field(min_length=1)

    @property
    def text(self) -> str:
        """The mean, with the standard deviation over the runs if there are several."""
        mean = f"{statistics.fmean(self.distances):.3f}"
        return f"{mean} ± {statistics.stdev(self.distances):.3f}" if len(self.distances) > 1 else mean


class Comparison(Frozen):
    schema_version: Literal[1] = 1
    metric: str
    data: str
    samples: int = Field(ge=2)
    seed: UInt64
    floor: Number
    entries: tuple[Entry, ...]

    def markdown(self) -> str:
        """A table with a row for each method and a column for each number of steps; lower is better."""
        steps = sorted({entry.steps for entry in self.entries}, reverse=True)
        texts = {(entry.method, entry.steps): entry.text for entry in self.entries}
        names = dict.fromkeys(entry.method for entry in self.entries)
        head = f"| {self.metric} | " + " | ".join(f"{n} step{'s' * (n > 1)}" for n in steps) + " |"
        rows = [f"| {name} | " + " | ".join(texts.get((name, n), "–") for n in steps) + " |" for name in names]
        floor = f"half of the real images against the other half: {self.floor:.3f}"
        note = f"{self.samples} samples of seed {self.seed}; {floor}"
        return "\n".join([head, "|---|" + "---:|" * len(steps), *rows, "", note, ""])


def compare(
    runs: Sequence[Path],
    count: int,
    seed: int,
    out: Path | None = None,
    data: str | None = None,
    extractor: str | None = None,
) -> Comparison:
    """Evaluate every student of the runs at and below their base step count, and their teachers by DDIM.

    Several runs of one method are repetitions.  extractor: by default the judge of the first run, for all of them.
    out: file for the table, .json or Markdown.
    Raises UsageError for runs on different data.
    """
    students, teachers = _students(runs)
    real, judge = evaluation_sources(runs[0], data, extractor)
    cards = [(read_checkpoint(path).card, path) for path in students]
    distilled = [(card.method, card.sampling_steps or 1, path, None) for card, path in cards if card]
    steps = sorted({n for _, n, _, _ in distilled}, reverse=True)
    baselines: list[tuple[str, int, Path, str | None]] = [(BASELINE, n, t, BASELINE) for t in teachers for n in steps]
    distances: dict[tuple[str, int], dict[str, tuple[str, float]]] = {}
    floor = 0.0
    for method, n, path, sampler in [*baselines, *distilled]:
        result = evaluate_cached(path, n, count, seed, real, judge, sampler)
        (row,), floor = result.rows, result.floor
        distances.setdefault((method, n), {})[row.checkpoint_sha256] = (str(path), row.distance)
    entries = tuple(
        Entry(
            method=method,
            steps=n,
            checkpoints=tuple(path for path, _ in values.values()),
            distances=tuple(distance for _, distance in values.values()),
        )
        for (method, n), values in distances.items()
    )
    table = Comparison(
        metric=metric_name(judge), data=real.name, samples=count, seed=seed, floor=floor, entries=entries
    )
    if out is None or not current().is_main:
        return table
    if out.suffix == ".json":
        write_model(out, table)
    else:
        write_bytes(out, table.markdown().encode())
    return table


def draw_comparison(comparison: Comparison, out: Path, columns: int = 8) -> list[str]:
    """Draw a grid with a row for each entry and the same noise in each column. Returns the names of the rows."""
    rows = []
    for entry in comparison.entries:
        sampler = BASELINE if entry.method == BASELINE else None
        checkpoint = read_checkpoint(Path(entry.checkpoints[0]))
        rows.append(sample_images(checkpoint, columns, entry.steps, comparison.seed, sampler=sampler))
    save_grid(np.concatenate(rows), out, columns)
    return [f"{entry.method} {entry.steps}" for entry in comparison.entries]


def evaluate_cached(
    folder: Path,
    steps: int,
    count: int,
    seed: int,
    real: ImageSet,
    extractor: Extractor,
    sampler: str | None = None,
) -> Evaluation:
    """`evaluate` with one number of steps, cached under everything that its numbers depend on."""
    checkpoint = read_checkpoint(folder)
    card = checkpoint.card.weights_sha256 + checkpoint.card.config_sha256 if checkpoint.card else checkpoint.sha256
    times = checkpoint.card.noise_times if checkpoint.card else None
    key = (card, times, steps, count, seed, real.sha256, extractor.sha256, sampler)
    path = cache_root() / "evaluations" / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.json"
    if everywhere(path.is_file()):
        return read_model(path, Evaluation)
    return evaluate(folder, (steps,), count, seed, real, extractor, path, sampler)


def _students(runs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The students of each run at and below its base step count, and the teachers."""
    from ..distillation.run import read_training_run

    run_files = [read_training_run(run) for run in runs]
    for run, file in zip(runs, run_files, strict=True):
        if file.data_sha256 != run_files[0].data_sha256:
            raise UsageError(f"{run} and {runs[0]} were trained on different data and cannot be compared")
    students: list[Path] = []
    for run, file in zip(runs, run_files, strict=True):
        steps = {path: int(path.name.removeprefix("student-")) for path in run.glob("student-*") if path.is_dir()}
        most = file.preset.sfddm.steps if file.preset.sfddm else file.preset.base_steps
        finished = [path for path in steps if steps[path] <= most]
        if not finished:
            raise MissingError(f"the training run {run} has no student yet: finish it with rdd-edge distill")
        students += sorted(finished, key=lambda path: -steps[path])
    return students, [run / "teacher" for run in runs if (run / "teacher").is_dir()]
