"""The quickstart at a small size: from images to the report, and a second time without repeating finished work."""

import json
from pathlib import Path

import pytest
from tiny import tiny

from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.diffusion.checkpoint import STUDENT
from rdd_edge.evaluation.checkpoint import Evaluation
from rdd_edge.quickstart import BUNDLES, _evaluate, quickstart
from rdd_edge.reading.documents import read_model

PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0.0, starts=1),
    accuracy=AccuracyPlan(samples=40, floats=20),
    threads=1,
)


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quickstart") / "out"
    quickstart(out, tiny(), PLAN)
    return out


def test_the_page_and_the_picture_are_there(finished):
    page = (finished / "report.html").read_text()
    for target, precisions in BUNDLES.items():
        assert target in page
        assert all(precision in page for precision in precisions)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (finished / "student.png").read_bytes().startswith(b"\x89PNG")


def test_every_runnable_artifact_was_scored_on_the_servers_noise(finished):
    for target, precisions in BUNDLES.items():
        for precision in precisions:
            bench = finished / "bench" / f"{target}-{precision}"
            record = json.loads((bench / "record.json").read_text())
            scores = json.loads((bench / "scores.json").read_text())
            assert record["where"] == "host"
            assert record["samples"]["count"] == scores["samples"] == 40
            assert scores["psnr_float"]["median_db"] > 30
            assert scores["distance"]["metric"] == "fd_digits_cnn"


def test_a_second_quickstart_trains_and_exports_nothing_again(finished, monkeypatch):
    monkeypatch.setattr("rdd_edge.quickstart.BUNDLES", {"jetson": ("fp16",)})  # it benchmarks all of them again
    before = times(finished / "run") | times(finished / "bundles")
    quickstart(finished, tiny(), PLAN)
    after = times(finished / "run") | times(finished / "bundles")
    evaluation = finished / "run" / "evaluation.json"
    assert after.pop(evaluation) > before.pop(evaluation)
    assert after == before


@pytest.mark.parametrize(("low", "stage"), [(0.9, None), (1.1, STUDENT), (None, None)])
def test_a_refined_student_that_is_worse_is_not_exported(finished, monkeypatch, tmp_path, capsys, low, stage):
    found = read_model(finished / "run" / "evaluation.json", Evaluation)
    rows = [row.model_copy(update={"distance_low": low, "distance_high": 1.0}) for row in found.rows]
    parts = iter([found.model_copy(update={"rows": (row,)}) for row in rows])
    monkeypatch.setattr("rdd_edge.evaluation.checkpoint.evaluate", lambda *_: next(parts))
    assert len(rows) == 3
    assert _evaluate(tmp_path, tiny(), None, None) == (tmp_path / stage if stage else tmp_path)
    assert ("The refined student is worse" in capsys.readouterr().out) == (stage is not None)
