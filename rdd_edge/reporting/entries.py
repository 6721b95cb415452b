"""What a report shows: benchmark runs with their scores, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..benchmarking.record import Summary, summary
from ..benchmarking.run import RECORD, BenchRun, read_bench_run
from ..errors import UsageError
from ..evaluation.scores import Distance, Scores, read_scores
from ..files import sha256_of
from ..reading.documents import read_model


@dataclass(frozen=True)
class Entry:
    """One benchmark run with its scores and the statistics of its latencies, where it has them.

    as_reference: the distances of a run that was scored against this one.
    """

    run: BenchRun
    scores: Scores | None
    stats: Summary | None
    as_reference: Distance | None = None

    @property
    def distance(self) -> Distance | None:
        return self.scores.distance if self.scores else None

    @property
    def frechet(self) -> float | None:
        """Fréchet distance of the run's images, from its own scores or from those of a run compared with it."""
        if self.distance:
            return self.distance.artifact
        return self.as_reference.server if self.as_reference else None

    def relative_to(self, baseline: Entry | None) -> float | None:
        """The median latency divided by the baseline's; None where one has none, or the baseline's is 0."""
        stats, base = self.stats, baseline.stats if baseline else None
        return stats.median / base.median if stats and base and base.median else None


def read_entries(benches: Sequence[Path], scores: Sequence[Path]) -> list[Entry]:
    """Read benchmark runs and their scores, the server first, then by target and precision.

    scores: files of scores of these runs, in place of the scores.json in their folders.
    """
    given = {one.record_sha256: (path, one) for path in scores for one in [read_model(path, Scores)]}
    entries = []
    for folder in benches:
        run, sha256 = read_bench_run(folder), sha256_of(folder / RECORD)
        _, found = given.pop(sha256, (None, None))
        entries.append((sha256, Entry(run, found or read_scores(folder), summary(run.record))))
    if given:
        path, _ = next(iter(given.values()))
        raise UsageError(f"{path} belongs to none of the benchmark runs: evaluate them again, or add its run")
    distances = {e.scores.reference_sha256: e.distance for _, e in entries if e.scores and e.distance}
    rows = [replace(entry, as_reference=distances.get(sha256)) for sha256, entry in entries]
    return sorted(rows, key=lambda e: (not e.run.is_server, e.run.record.target, e.run.record.precision))


def reference_of(run: BenchRun, servers: Sequence[BenchRun]) -> BenchRun | None:
    """The server's run of the same student from the same noise, if it is among `servers`."""

    def student_and_noise(one: BenchRun) -> tuple[str, dict[str, int] | None]:
        return one.record.checkpoint_sha256, one.record.samples.noise if one.record.samples else None

    if run.is_server or run.record.samples is None:
        return None
    return next((server for server in servers if student_and_noise(server) == student_and_noise(run)), None)
