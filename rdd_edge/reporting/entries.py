"""What a report shows: benchmark runs with their scores, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..benchmarking.record import Summary, summary
from ..benchmarking.run import RECORD, SCORES, BenchRun, read_bench_run
from ..errors import CorruptError, UsageError
from ..evaluation.scores import Distance, Scores
from ..files import read_model, sha256_of

__all__ = ["Entry", "read_entries", "reference_of"]


@dataclass(frozen=True)
class Entry:
    """One benchmark run with its scores and the statistics of its latencies, where it has them."""

    run: BenchRun
    scores: Scores | None
    stats: Summary | None

    @property
    def distance(self) -> Distance | None:
        return self.scores.distance if self.scores else None


def read_entries(benches: Sequence[Path], scores: Sequence[Path]) -> list[Entry]:
    """Read benchmark runs and their scores, the server first, then by target and precision.

    scores: files of scores of these runs, in place of the scores.json in their folders.
    """
    by_record: dict[str, tuple[Path, Scores]] = {}
    for path in scores:
        given = read_model(path, Scores)
        by_record[given.record_sha256] = path, given
    entries = []
    for folder in benches:
        run, record_sha256 = read_bench_run(folder), sha256_of(folder / RECORD)
        _, found = by_record.pop(record_sha256, (None, None))
        if found is None and (folder / SCORES).is_file():
            found = read_model(folder / SCORES, Scores)
            if found.record_sha256 != record_sha256:
                raise CorruptError(
                    f"{folder / SCORES} belongs to another record than the one beside it: evaluate the run again"
                )
        entries.append(Entry(run, found, summary(run.record)))
    if by_record:
        path, _ = next(iter(by_record.values()))
        raise UsageError(f"{path} belongs to none of the benchmark runs: evaluate them again, or add its run")
    return sorted(entries, key=lambda e: (not e.run.is_server, e.run.record.target, e.run.record.precision))


def reference_of(entry: Entry, runs: Sequence[BenchRun]) -> BenchRun | None:
    """The server's run of the same student from the same noise, if it is among `runs`."""
    record = entry.run.record
    for other in runs:
        if not other.is_server or entry.run.is_server or record.samples is None or other.record.samples is None:
            continue
        keys = ("seed", "count", "height", "width", "channels")
        same = all(getattr(record.samples, key) == getattr(other.record.samples, key) for key in keys)
        if same and record.checkpoint_sha256 == other.record.checkpoint_sha256:
            return other
    return None
