"""Which changes between two benchmark runs are allowed, and which are regressions."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import write_run, write_scores

from rdd_edge.benchmarking.record import RunRecord, Runtime
from rdd_edge.errors import CorruptError, MissingError, ThresholdError, UsageError
from rdd_edge.evaluation.regression import compare_runs
from rdd_edge.files import write_model
from rdd_edge.reading.documents import read_model


def pair(folder: Path, *, slower: float = 1.0, worse: float = 1.0) -> tuple[Path, Path]:
    a, b = write_run(folder / "a", median_ms=4.0), write_run(folder / "b", median_ms=4.0 * slower)
    server = write_run(folder / "server", "server")
    write_scores(a, server, distance=2.0)
    write_scores(b, server, distance=2.0 * worse)
    return a, b


def test_equal_runs_pass(tmp_path: Path) -> None:
    found = compare_runs(*pair(tmp_path), max_slower=0.0, max_fd_rise=0.0)
    found.check()
    assert [change.name for change in found.changes] == ["median", "p90", "fd_quarters"]


@pytest.mark.parametrize(
    ("slower", "worse", "named"), [(1.06, 1.0, "median"), (1.0, 1.03, "fd_quarters"), (1.2, 1.2, "median.*fd_quarters")]
)
def test_a_regression_stops(tmp_path: Path, slower: float, worse: float, named: str) -> None:
    found = compare_runs(*pair(tmp_path, slower=slower, worse=worse), max_slower=0.05, max_fd_rise=0.02)
    with pytest.raises(ThresholdError, match=named):
        found.check()
    assert any("REGRESSION" in str(change) for change in found.changes)


def test_within_the_limits_passes(tmp_path: Path) -> None:
    compare_runs(*pair(tmp_path, slower=1.04, worse=1.019), max_slower=0.05, max_fd_rise=0.02).check()
    compare_runs(*pair(tmp_path / "more", slower=3, worse=3), max_slower=None, max_fd_rise=None).check()


def test_what_does_not_compare_is_a_sentence(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    with pytest.raises(UsageError, match="compare runs of the same target"):
        compare_runs(a, tmp_path / "server", None, None)
    nowhere = write_run(tmp_path / "nowhere", reason="no runtime")
    with pytest.raises(MissingError, match="has no latencies: no runtime"):
        compare_runs(a, nowhere, 0.05, None)
    assert compare_runs(a, nowhere, None, None).changes == ()
    (b / "scores.json").unlink()
    with pytest.raises(MissingError, match="rdd-edge evaluate"):
        compare_runs(a, b, None, 0.02)
    assert len(compare_runs(a, b, 0.05, None).changes) == 2
    write_run(b, median_ms=9.0)
    (b / "scores.json").write_bytes((a / "scores.json").read_bytes())
    with pytest.raises(CorruptError, match="belongs to another record"):
        compare_runs(a, b, None, None)


def test_times_in_other_power_modes_do_not_compare(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    record = read_model(b / "record.json", RunRecord)
    write_model(b / "record.json", record.model_copy(update={"power_mode": "15W"}))
    (b / "scores.json").unlink()
    for limit in (0.05, None):
        with pytest.raises(UsageError, match=r"cannot be compared: power mode MAXN and 15W\. .* --any-conditions"):
            compare_runs(a, b, limit, None)
    found = compare_runs(a, b, 0.05, None, any_conditions=True)
    assert found.notes == ("power mode MAXN and 15W",)
    assert found.changes


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("threads", 3, "threads 2 and 3"),
        ("batch", 4, "batch 1 and 4"),
        ("where", "device", "measured on host, a core and box, a core"),
        ("runtime", Runtime(name="other", version="2", backend="gpu"), "runtime fakert 7.0 cpu and other 2 gpu"),
    ],
)
def test_unequal_conditions_are_named(tmp_path: Path, name: str, value: object, note: str) -> None:
    a, b = pair(tmp_path)
    record = read_model(b / "record.json", RunRecord)
    write_model(b / "record.json", record.model_copy(update={name: value}))
    (b / "scores.json").unlink()
    with pytest.raises(UsageError, match=note):
        compare_runs(a, b, 0.05, None)


def test_distances_of_runs_on_different_machines_compare(tmp_path: Path) -> None:
    a, server = write_run(tmp_path / "a"), write_run(tmp_path / "server", "server")
    b = write_run(tmp_path / "b")
    record = read_model(b / "record.json", RunRecord)
    write_model(b / "record.json", record.model_copy(update={"threads": 7}))
    for run in (a, b):
        write_scores(run, server, distance=2.0)
    found = compare_runs(a, b, None, 0.02)
    found.check()
    assert found.notes


def side(folder: Path, *medians: float) -> Path:
    for i, median_ms in enumerate(medians):
        write_run(folder / f"{i}", median_ms=median_ms)
    return folder


def test_repetitions_decide_by_their_spread(tmp_path: Path) -> None:
    old = side(tmp_path / "old", 4.0, 4.6, 4.1)
    noisy, slower = side(tmp_path / "noisy", 4.5, 4.8, 4.7), side(tmp_path / "slower", 5.0, 5.2, 5.1)
    found = compare_runs(old, noisy, 0.05, None)
    found.check()
    assert "4.1 [4 … 4.6] → 4.7 [4.5 … 4.8] ms (+14.6%, 5.0% allowed): within the spread" in str(found.changes[0])
    with pytest.raises(ThresholdError, match="median"):
        compare_runs(old, slower, 0.05, None).check()
    with pytest.raises(MissingError, match="is not a benchmark run"):
        compare_runs(old, tmp_path / "absent", 0.05, None)
