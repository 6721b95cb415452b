"""kill -9 at twenty random moments over a run of every stage of the digits preset: the weights stay the same."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny, weights

from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import stage_names

KILLS = 20
MORE = (
    "first_steps=16", "teacher.steps=40", "pd.steps=16", "distillation.steps=24",
    "extractor_training.epochs=3", "judge_training.epochs=3",
)  # fmt: skip


def in_the_middle_of_a_save(run: Path) -> bool:
    """Whether a temporary file or folder exists: of a state, a stage's result, or run.json."""
    for _, folders, files in os.walk(run):
        if any(name.startswith(".") and name != ".state" for name in (*folders, *files)):
            return True
    return False


def newest(run: Path) -> float:
    """Time of the last change below the run, 0 without one, while files come and go."""
    times = [0.0]
    for folder, _, files in os.walk(run):
        for name in ("", *files):
            try:
                times.append(os.stat(os.path.join(folder, name)).st_mtime)
            except FileNotFoundError:
                continue
    return max(times)


def wait(process: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not until():
        assert process.poll() is None, f"the run ended: {process.stderr.read().decode()}"
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.001)


def killed(command: list[str], run: Path, moment: float, saving: bool) -> bool:
    """Start a process, kill it so many seconds after the first sign of its work; whether that was in a save.

    saving: wait for one after the moment.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    before = max(newest(run), time.time())
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        wait(process, lambda: newest(run) > before)
        end = time.monotonic() + moment
        wait(process, lambda: time.monotonic() >= end)
        if saving:
            wait(process, lambda: in_the_middle_of_a_save(run))
        process.send_signal(signal.SIGKILL)
    return in_the_middle_of_a_save(run)


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(tmp_path):
    """Every fourth kill waits for a save after its moment, so that saving is hit whatever the machine's speed."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    began = time.monotonic()
    distill(tiny(*MORE), whole, device="cpu", save_seconds=0)
    span = 0.9 * (time.monotonic() - began) / KILLS  # between start and kill: twenty together are half of a run
    settings = [word for setting in (*TINY, *MORE) for word in ("--set", setting)]
    command = [sys.executable, "-m", "rdd_edge", "distill", "--device", "cpu", "--save-seconds", "0", "--out", str(run)]
    draws, stages, saves = random.Random(0), set[str](), 0
    for kill in range(KILLS):
        saves += killed([*command, *settings], run, draws.uniform(0, span), saving=kill % 4 == 0)
        stages |= {path.name for path in run.glob(".state/*")}
    assert KILLS // 4 - 1 <= saves <= KILLS - 3  # in saving, and in training too
    assert len(stages) >= 3, stages
    subprocess.run([*command, *settings], check=True, capture_output=True)
    assert set(weights(run)) == set(stage_names(tiny(*MORE)))
    assert weights(run) == weights(whole)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
    for log in whole.glob("logs/*.jsonl"):
        assert (run / "logs" / log.name).read_text() == log.read_text()
