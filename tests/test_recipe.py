"""The recipe of the shipped model: rehearsed whole, moved between machines twice, and its mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from parquets import write_parquet

from rdd_edge.diffusion.checkpoint import read_checkpoint

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10-edge.sh"


def call(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "RDD_EDGE_CACHE": str(tmp_path / "cache")}
    command = [str(RECIPE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)


@pytest.mark.slow
def test_the_rehearsal_ends_with_a_model_and_every_figure(tmp_path: Path) -> None:
    from rdd_edge.metrics.classifiers import Classifier, ExtractorConfig, save_classifier

    config = ExtractorConfig(name="judge", architecture="cnn", widths=(4, 8), image_shape=(3, 32, 32), classes=10)
    save_classifier(tmp_path / "judge", Classifier(config))
    data = write_parquet(tmp_path / "data", 600)
    done = call(tmp_path, "--rehearse", "--data", data, "--judge", tmp_path / "judge", "--work", tmp_path / "work")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped in stage extractor after 1 of" in done.stdout
    assert "finished:" in done.stdout.splitlines()[-1]
    work = tmp_path / "work"
    figures = {path.stem: json.loads(path.read_text()) for path in (work / "results").glob("*.json")}
    assert set(figures) == {"speed", "teacher", "rdd-8", "rdd-4", "rdd-2", "rdd-1", "rcfd-1", "pd-1"}
    assert {figures[f"{method}-1"]["rows"][0]["method"] for method in ("rdd", "rcfd", "pd")} == {"rdd", "rcfd", "pd"}
    assert all((work / "results" / f"{name}.png").is_file() for name in set(figures) - {"speed"})
    assert "RDD over PD, one step: " in (work / "results" / "summary.md").read_text()
    told = json.loads((work / "run" / "run.json").read_text())
    assert told["compacted"][0] == "extractor at step 1"
    assert len(told["compacted"]) == 2
    packed = read_checkpoint(work / "cifar10-edge")
    assert packed.sha256 in (work / "cifar10-edge" / "README.md").read_text()
    parts = list(tmp_path.glob("work-carried-*/part.*"))
    assert len({part.parent for part in parts}) == 3
    assert all(part.stat().st_size <= 15_000_000 for part in parts)


def test_a_failing_command_is_not_taken_for_a_lack_of_time(tmp_path: Path) -> None:
    (tmp_path / "work" / "results").mkdir(parents=True)
    (tmp_path / "work" / "settings").write_text("teacher.steps=1\n")
    told = ("--data", tmp_path / "absent", "--judge", "judge", "--work", tmp_path / "work", "--to", tmp_path / "out")
    done = call(tmp_path, *told)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "there is no data set" in done.stderr
    assert "not finished" not in done.stdout
    assert (tmp_path / "out" / "part.000").is_file()  # what is done by then is not lost


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --data and --judge"),
        (("--data",), "--data needs a value"),
        (("--date", "x"), "there is no option --date"),
    ],
)
def test_a_mistake_in_the_options_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_nothing_to_continue_is_not_begun_anew(tmp_path: Path) -> None:
    done = call(tmp_path, "--data", "digits", "--judge", "judge", "--from", tmp_path / "out", "--work", "work")
    assert done.returncode == 3
    assert "holds no part.000" in done.stderr
    assert list(tmp_path.iterdir()) == []
