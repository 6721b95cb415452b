"""`rdd-edge compare-bench`: whether a new benchmark run is slower or worse than an old one by more than allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..benchmarking.record import summary
from ..benchmarking.run import SCORES, BenchRun, read_bench_run
from ..errors import MissingError, ThresholdError, UsageError
from .scores import Distance, read_scores

__all__ = ["BenchComparison", "Change", "compare_runs"]


@dataclass(frozen=True)
class Change:
    """One figure of both runs. limit: the largest allowed relative rise; None: for information only."""

    name: str
    unit: str
    before: float
    after: float
    limit: float | None

    @property
    def relative(self) -> float:
        """after / before - 1."""
        return self.after / self.before - 1.0 if self.before else float("inf" if self.after else 0.0)

    @property
    def regressed(self) -> bool:
        return self.limit is not None and self.relative > self.limit

    def __str__(self) -> str:
        allowed = "" if self.limit is None else f", {self.limit:.1%} allowed"
        verdict = ": REGRESSION" if self.regressed else ""
        return f"{self.name} {self.before:.4g} → {self.after:.4g} {self.unit} ({self.relative:+.1%}{allowed}){verdict}"


@dataclass(frozen=True)
class BenchComparison:
    """All figures of both runs."""

    changes: tuple[Change, ...]

    def check(self) -> None:
        """Raise ThresholdError if a figure regressed."""
        worse = [change for change in self.changes if change.regressed]
        if worse:
            what = "; ".join(f"{c.name} {c.relative:+.1%} ({c.limit:.1%} allowed)" for c in worse)
            raise ThresholdError(f"the new run regressed: {what}")


def compare_runs(before: Path, after: Path, max_slower: float | None, max_fd_rise: float | None) -> BenchComparison:
    """Compare a new benchmark run with an old one.

    max_slower: largest allowed relative rise of the median latency.  max_fd_rise: that of the Fréchet distance, from
    the scores.json of both folders.  None: the figure is shown if both runs have it, but cannot fail.
    Raises UsageError where the runs cannot be compared, MissingError where a limited figure is missing.
    """
    old, new = read_bench_run(before), read_bench_run(after)
    if (old.record.target, old.record.precision) != (new.record.target, new.record.precision):
        raise UsageError(
            f"{before} is {old.title} and {after} is {new.title}: compare runs of the same target and precision"
        )
    return BenchComparison((*_speed(old, new, max_slower), *_quality(old, new, max_fd_rise)))


def _speed(old: BenchRun, new: BenchRun, limit: float | None) -> list[Change]:
    a, b = summary(old.record), summary(new.record)
    if a is None or b is None:
        if limit is None:
            return []
        untimed = old if a is None else new
        raise MissingError(f"{untimed.folder} has no latencies: {untimed.record.missing['latency_ms']}")
    if limit is not None and old.record.device != new.record.device:
        raise UsageError(f"{old.folder} and {new.folder} were timed on different machines and cannot be compared")
    modes = [(run.record.power_mode, run.record.clocks_locked) for run in (old, new)]
    if limit is not None and modes[0] != modes[1]:
        raise UsageError(
            f"{old.folder} and {new.folder} were timed in different power modes or with different clock settings: "
            f"{modes[0][0]} and {modes[1][0]}, clocks locked {modes[0][1]} and {modes[1][1]}"
        )
    return [Change("median", "ms", a.median, b.median, limit), Change("p90", "ms", a.p90, b.p90, None)]


def _quality(old: BenchRun, new: BenchRun, limit: float | None) -> list[Change]:
    a, b = _distance(old, limit), _distance(new, limit)
    if a is None or b is None:
        return []
    same = (a.metric, a.extractor_sha256, a.real_images) == (b.metric, b.extractor_sha256, b.real_images)
    x, y = old.record.samples, new.record.samples
    if not same or x is None or y is None or (x.seed, x.count) != (y.seed, y.count):
        if limit is None:
            return []
        raise UsageError(
            f"the distances of {old.folder} and {new.folder} cannot be compared: metric, extractor, real images, seed "
            "and number of samples have to be the same"
        )
    return [Change(a.metric, "", a.artifact, b.artifact, limit)]


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
