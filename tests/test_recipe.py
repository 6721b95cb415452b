"""The recipe of the shipped model: a whole rehearsal, stopped and continued, and wrong options."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parquets import write_parquet

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.distillation.run_folder import read_training_run

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10_edge.py"


def call(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RDD_EDGE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(RECIPE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)


@pytest.mark.slow
def test_the_rehearsal_ends_with_a_model_and_every_figure(tmp_path: Path) -> None:
    from rdd_edge.metrics.classifiers import save_classifier
    from rdd_edge.metrics.networks import Classifier, ExtractorConfig

    config = ExtractorConfig(name="judge", architecture="cnn", widths=(4, 8), image_shape=(3, 32, 32), classes=10)
    save_classifier(tmp_path / "judge", Classifier(config))
    data = write_parquet(tmp_path / "data", 600)
    work = tmp_path / "work"
    options = ("--rehearse", "--budget", 1, "--data", data, "--judge", tmp_path / "judge", "--work", work)
    done = call(tmp_path, *options, "--max-minutes", 0)
    assert (done.returncode, done.stdout) == (0, "run: stopped before stage extractor: the same command continues\n")
    said = interrupted(tmp_path, work / "run" / "logs" / "teacher.jsonl", *options)
    assert re.match("stopped (in stage teacher|before stage student-8)", said)  # its last step may have been the next
    done = call(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: " in done.stdout
    figures = {path.stem: json.loads(path.read_text()) for path in (work / "results").glob("*.json")}
    assert set(figures) == {"teacher", "rdd-8", "rdd-4", "rdd-2", "rdd-1", "refined", "rcfd-1", "pd-1"}
    assert {figures[f"{method}-1"]["rows"][0]["method"] for method in ("rdd", "rcfd", "pd")} == {"rdd", "rcfd", "pd"}
    assert all((work / "results" / f"{name}.png").is_file() for name in figures)
    assert "| pd-1 |" in (work / "results" / "summary.md").read_text()
    lengths = {name: read_training_run(work / name).preset.distillation.steps for name in ("run", "rcfd", "pd")}
    assert len(set(lengths.values())) == 1
    packed = read_checkpoint(work / "cifar10-edge")
    assert packed.sha256 in (work / "cifar10-edge" / "README.md").read_text()


def interrupted(tmp_path: Path, file: Path, *arguments: object) -> str:
    """Start the recipe and press Ctrl-C once `file` exists; the last line that it prints."""
    environment = {**os.environ, "RDD_EDGE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(RECIPE), *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        deadline = time.monotonic() + 900
        while not file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 130, error
    return error.splitlines()[-1]


def test_a_failing_command_is_not_taken_for_a_lack_of_time(tmp_path: Path) -> None:
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
