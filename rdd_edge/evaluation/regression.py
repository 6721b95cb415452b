"""`rdd-edge compare-bench`: whether a new benchmark run is slower or worse than an old one by more than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..benchmarking.record import summary
from ..benchmarking.run import RECORD, SCORES, BenchRun, read_bench_run
from ..errors import MissingError, ThresholdError, UsageError
from .scores import Distance, read_scores


@dataclass(frozen=True)
class Change:
    """One figure of both sides, in each of their runs. limit: largest allowed relative rise; None: information only."""

    name: str
    unit: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    limit: float | None

    @property
    def relative(self) -> float:
        """median after / median before - 1."""
        before, after = median(self.before), median(self.after)
        return after / before - 1.0 if before else float("inf" if after else 0.0)

    @property
    def regressed(self) -> bool:
        """Whether the medians rose by more than the limit, and every new run is above every old one."""
        return self.limit is not None and self.relative > self.limit and min(self.after) > max(self.before)

    def __str__(self) -> str:
        allowed = "" if self.limit is None else f", {self.limit:.1%} allowed"
        above = self.limit is not None and self.relative > self.limit
        verdict = ": REGRESSION" if self.regressed else ": within the spread of the runs" if above else ""
        sides = f"{_shown(self.before)} → {_shown(self.after)}"
        return f"{self.name} {sides} {self.unit} ({self.relative:+.1%}{allowed}){verdict}"


@dataclass(frozen=True)
class BenchComparison:
    """All figures of both sides. notes: conditions in which the sides differ, where they were allowed to."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise ThresholdError if a figure regressed."""
        worse = [change for change in self.changes if change.regressed]
        if worse:
            what = "; ".join(f"{c.name} {c.relative:+.1%} ({c.limit:.1%} allowed)" for c in worse)
            raise ThresholdError(f"the new run regressed: {what}")


def compare_runs(
    before: Path, after: Path, max_slower: float | None, max_fd_rise: float | None, *, any_conditions: bool = False
) -> BenchComparison:
    """Compare new benchmark runs with old ones.

    before, after: a benchmark run, or a folder of repetitions of one. With repetitions a figure regressed only if, in
    addition, every new run is above every old one.
    max_slower: largest allowed relative rise of the median latency.  max_fd_rise: that of the Fréchet distance, from
    the scores.json of all runs.  None: the figure is shown if all runs have it, but cannot fail.
    any_conditions: compare times that were measured under different conditions, too. With `max_fd_rise` alone they
    are only shown, so any conditions will do.
    Raises UsageError where the runs cannot be compared, MissingError where a limited figure is missing.
    """
    old, new = _repetitions(before), _repetitions(after)
    first = old[0]
    for run in (*old, *new):
        if (run.record.target, run.record.precision) != (first.record.target, first.record.precision):
            raise UsageError(
                f"{first.folder} is {first.title} and {run.folder} is {run.title}: compare runs of the same target and "
                "precision"
            )
    notes = _different_conditions((*old, *new))
    about_times = max_slower is not None or max_fd_rise is None
    if notes and about_times and not any_conditions:
        raise UsageError(
            f"the times of {before} and {after} cannot be compared: {'; '.join(notes)}. Measure them under the same "
            "conditions, or give --any-conditions"
        )
    return BenchComparison((*_speed(old, new, max_slower), *_quality(old, new, max_fd_rise)), notes)


def _repetitions(path: Path) -> list[BenchRun]:
    """The benchmark run at `path`, or those in its folders."""
    folders = [path] if (path / RECORD).is_file() else sorted(file.parent for file in path.glob(f"*/{RECORD}"))
    return [read_bench_run(folder) for folder in folders or [path]]


def _different_conditions(runs: Sequence[BenchRun]) -> tuple[str, ...]:
    """What differs among the timed runs of all that affects their times."""
    timed = [_conditions(run) for run in runs if run.record.latency_ms]
    differing = []
    for name in timed[0] if timed else ():
        values = dict.fromkeys(str(conditions[name]) for conditions in timed)
        if len(values) > 1:
            differing.append(f"{name} {' and '.join(values)}")
    return tuple(differing)


def _conditions(run: BenchRun) -> dict[str, object]:
    r, p = run.record, run.plan.performance
    return {
        "measured on": f"{run.place}, {r.device.processor or r.device.machine}",
        "memory": r.device.memory_bytes,
        "system": r.device.system,
        "runtime": r.runtime and f"{r.runtime.name} {r.runtime.version} {r.runtime.backend or ''}".strip(),
        "threads": r.threads,
        "batch": r.batch,
        "power mode": r.power_mode,
        "clocks locked": r.clocks_locked,
        "plan": f"{p.warmup} warm-up, at least {p.runs} runs and {p.seconds:g} s",
        "process starts": r.starts,
    }


def _speed(old: Sequence[BenchRun], new: Sequence[BenchRun], limit: float | None) -> list[Change]:
    summaries = {run.folder: summary(run.record) for run in (*old, *new)}
    for run in (*old, *new):
        if summaries[run.folder] is None:
            if limit is None:
                return []
            raise MissingError(f"{run.folder} has no latencies: {run.record.missing['latency_ms']}")

    def change(name: str, limit: float | None) -> Change:
        before, after = (tuple(getattr(summaries[run.folder], name) for run in side) for side in (old, new))
        return Change(name, "ms", before, after, limit)

    return [change("median", limit), change("p90", None)]


def _quality(old: Sequence[BenchRun], new: Sequence[BenchRun], limit: float | None) -> list[Change]:
    distances = {run.folder: _distance(run, limit) for run in (*old, *new)}
    first = distances[old[0].folder]
    measures = set()
    for run in (*old, *new):
        d, samples = distances[run.folder], run.record.samples
        if d is None or samples is None or first is None:
            return []
        measures.add((d.metric, d.extractor_sha256, d.real_images, samples.seed, samples.count))
    if len(measures) > 1:
        if limit is None:
            return []
        raise UsageError(
            f"the distances of {old[0].folder} and {new[0].folder} cannot be compared: metric, extractor, real images, "
            "seed and number of samples have to be the same"
        )
    before, after = (tuple(d.artifact for run in side if (d := distances[run.folder])) for side in (old, new))
    assert first is not None
    return [Change(first.metric, "", before, after, limit)]


def _shown(values: tuple[float, ...]) -> str:
    """The median, with the range where there are several."""
    spread = f" [{min(values):.4g} … {max(values):.4g}]" if len(values) > 1 else ""
    return f"{median(values):.4g}{spread}"


def _distance(run: BenchRun, limit: float | None) -> Distance | None:
    scores = read_scores(run.folder)
    if limit is None or (scores and scores.distance):
        return scores.distance if scores else None
    path = run.folder / SCORES
    if scores is None:
        raise MissingError(
            f"there is no {path}: create it with rdd-edge evaluate {run.folder} --reference SERVER_BENCH --out {path}"
        )
    raise MissingError(f"{path} has no distance: {scores.missing.get('distance', 'no reason given')}")
