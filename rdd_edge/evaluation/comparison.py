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
from ..files import write_bytes, write_model
from ..metrics.extractors import Extractor
from ..metrics.inception import metric_name
from ..reading.documents import read_model
from ..schema import Frozen, UInt64
from .checkpoint import Evaluation, evaluate
from .repetitions import BASELINE, require_equal_judges, table_rows
from .sample_quality import DASH, TITLES, Neighbors
from .sources import evaluation_sources

Number = Annotated[float, Field(allow_inf_nan=False)]
FORMAT = 2  # of the cached evaluations


class Entry(Frozen):
    """One method in one number of steps: the figures of each of its checkpoints, in the order of the runs."""

    method: str  # with the settings in which it differs from other runs of the method
    steps: int = Field(ge=1)
    checkpoints: tuple[str, ...]
    distances: tuple[Number, ...] = Field(min_length=1)
    neighbors: tuple[Neighbors, ...] = Field(min_length=1)

    @property
    def text(self) -> str:
        return _spread(self.distances)

    @property
    def neighbor_texts(self) -> list[str]:
        return _texts(self.neighbors)


class Comparison(Frozen):
    schema_version: Literal[1] = 1
    metric: str
    data: str
    samples: int = Field(ge=2)
    seed: UInt64  # of the first checkpoint of each entry; the next ones have the next seeds
    floor: Number  # mean over the judges
    floor_spread: Number
    real: tuple[Neighbors, ...]  # the figures that other real images would have, by each judge
    entries: tuple[Entry, ...]

    def markdown(self) -> str:
        """The distances as a table of method × steps, lower being better, and the other figures by row."""
        steps = sorted({entry.steps for entry in self.entries}, reverse=True)
        texts = {(entry.method, entry.steps): entry.text for entry in self.entries}
        names = dict.fromkeys(entry.method for entry in self.entries)
        head = f"| {self.metric} | " + " | ".join(f"{n} step{'s' * (n > 1)}" for n in steps) + " |"
        rows = [f"| {name} | " + " | ".join(texts.get((name, n), DASH) for n in steps) + " |" for name in names]
        seeds = max(len(entry.distances) for entry in self.entries)
        noise = f"seed {self.seed}" if seeds == 1 else f"seeds {self.seed} to {self.seed + seeds - 1}, one for each run"
        note = f"{self.samples} samples of {noise}; real images have {self.floor:.3f} ± {self.floor_spread:.3f}"
        others = [(f"{entry.method} {entry.steps}", entry.neighbor_texts) for entry in self.entries]
        return "\n".join([
            head, "|---|" + "---:|" * len(steps), *rows, "", note, "",
            f"| | {' | '.join(TITLES)} |", "|---|" + "---:|" * len(TITLES),
            *(f"| {name} | {' | '.join(cells)} |" for name, cells in [*others, ("real images", _texts(self.real))]),
            "",
        ])  # fmt: skip


def compare(
    runs: Sequence[Path],
    count: int,
    seed: int,
    out: Path | None = None,
    data: str | None = None,
    extractor: str | None = None,
) -> Comparison:
    """Evaluate every student of the runs at and below their base step count, and their teachers by DDIM.

    Runs that differ in nothing but the seed are repetitions, each evaluated on noise of its own and by a judge of its
    own, so that their spread is that of the whole command with another seed; runs that differ in a setting are rows of
    their own.
    extractor: by default each run's judge.
    out: file for the table, .json or Markdown.
    Raises UsageError for runs on different data or with judges of different settings.
    """
    rows = table_rows(runs)
    if extractor is None:
        require_equal_judges(runs)
    sources = {run: evaluation_sources(run, data, extractor) for run in runs}
    results = {
        key: [
            evaluate_cached(path, key[1], count, (seed + i) % 2**64, *sources[path.parent], _sampler(path))
            for i, path in enumerate(paths)
        ]
        for key, paths in rows.items()
    }
    real, judge = sources[runs[0]]
    by_judge = {one.extractor_sha256: one for found in results.values() for one in found}.values()
    table = Comparison(
        metric=metric_name(judge),
        data=real.name,
        samples=count,
        seed=seed,
        floor=statistics.fmean(one.floor for one in by_judge),
        floor_spread=statistics.fmean(one.floor_spread for one in by_judge),
        real=tuple(one.real for one in by_judge),
        entries=tuple(
            Entry(
                method=name,
                steps=n,
                checkpoints=tuple(map(str, rows[name, n])),
                distances=tuple(result.rows[0].distance for result in found),
                neighbors=tuple(result.rows[0].neighbors for result in found),
            )
            for (name, n), found in results.items()
        ),
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
        first = Path(entry.checkpoints[0])
        images = sample_images(read_checkpoint(first), columns, entry.steps, comparison.seed, sampler=_sampler(first))
        rows.append(images)
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
    key = (FORMAT, card, times, steps, count, seed, real.sha256, extractor.sha256, sampler)
    path = cache_root() / "evaluations" / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.json"
    if everywhere(path.is_file()):
        return read_model(path, Evaluation)
    return evaluate(folder, (steps,), count, seed, real, extractor, path, sampler)


def _sampler(path: Path) -> str | None:
    """DDIM for a teacher; a student's own is chosen by None."""
    return BASELINE if path.name == "teacher" else None


def _texts(neighbors: Sequence[Neighbors]) -> list[str]:
    """The figures in the order of TITLES: of one with its interval, of several with their spread."""
    if len(neighbors) == 1:
        return neighbors[0].texts()
    columns = ([getattr(one, name) for one in neighbors] for name in Neighbors.model_fields)
    return [DASH if None in figures else _spread([one.value for one in figures]) for figures in columns]


def _spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation if there are several values."""
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean
