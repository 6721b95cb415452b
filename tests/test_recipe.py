"""The recipe of the shipped model: a whole rehearsal, stopped and continued, and wrong options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from parquets import write_parquet

from rdd_edge.diffusion.checkpoint import read_checkpoint

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10_edge.py"


def call(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RDD_EDGE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(RECIPE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)


@pytest.mark.slow
def test_the_rehearsal_ends_with_a_model_and_every_figure(tmp_path: Path) -> None:
    from rdd_edge.metrics.classifiers import Classifier, ExtractorConfig, save_classifier

    config = ExtractorConfig(name="judge", architecture="cnn", widths=(4, 8), image_shape=(3, 32, 32), classes=10)
    save_classifier(tmp_path / "judge", Classifier(config))
    data = write_parquet(tmp_path / "data", 600)
    work = tmp_path / "work"
    options = ("--rehearse", "--data", data, "--judge", tmp_path / "judge", "--work", work)
    for minutes, says in ((0, "stopped in stage extractor after 1 of"), (0.2, "stopped "), (1000, "finished: ")):
        done = call(tmp_path, *options, "--max-minutes", minutes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert says in done.stdout
    figures = {path.stem: json.loads(path.read_text()) for path in (work / "results").glob("*.json")}
    assert set(figures) == {"speed", "teacher", "rdd-8", "rdd-4", "rdd-2", "rdd-1", "rcfd-1", "pd-1"}
    assert {figures[f"{method}-1"]["rows"][0]["method"] for method in ("rdd", "rcfd", "pd")} == {"rdd", "rcfd", "pd"}
    assert all((work / "results" / f"{name}.png").is_file() for name in set(figures) - {"speed"})
    assert "| pd-1 |" in (work / "results" / "summary.md").read_text()
    packed = read_checkpoint(work / "cifar10-edge")
    assert packed.sha256 in (work / "cifar10-edge" / "README.md").read_text()
    other = call(tmp_path, *options[1:])
    assert (other.returncode, other.stdout) == (2, "")
    assert "was started with --rehearse: use another --work" in other.stderr


def test_a_failing_command_is_not_taken_for_a_lack_of_time(tmp_path: Path) -> None:
    base = subprocess.run(
        [sys.executable, "-c", "import json, cifar10_edge; print(json.dumps([*cifar10_edge.FULL, 'teacher.steps=1']))"],
        capture_output=True, text=True, check=True, cwd=RECIPE.parent,
    )  # fmt: skip
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.json").write_text(base.stdout)
    done = call(tmp_path, "--data", tmp_path / "absent", "--judge", "judge", "--work", tmp_path / "work")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "there is no data set" in done.stderr
    assert "continues" not in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "the following arguments are required: --data, --judge"),
        (("--data",), "--data: expected one argument"),
        (("--data", "x", "--judge", "y", "--date", "x"), "unrecognized arguments: --date"),
        (("--data", "x", "--judge", "y", "--budget", "0"), "--budget must be above 0"),
        (("--data", "x", "--judge", "y", "--budget", "nan"), "--budget must be above 0"),
        (("--data", "x", "--judge", "y", "--max-minutes", "-1"), "--max-minutes at least 0"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    done = call(tmp_path, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
