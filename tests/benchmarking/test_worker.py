"""A runtime that dies in the child is an error of one sentence in the parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import Recorder

from rdd_edge.benchmarking.isolation import Request, _error_class, in_child, run_artifact, supervise
from rdd_edge.console import reporting_to
from rdd_edge.errors import ArtifactError, UsageError
from rdd_edge.targets.base import ExportSpec

SPEC = ExportSpec("fp32", (2, 1, 4, 4), None)


def run(tmp_path: Path, word: str, count: int = 2, spec: ExportSpec = SPEC, label=None):
    (tmp_path / "artifact").write_text(word)
    z = np.random.default_rng(0).standard_normal((count, 1, 4, 4)).astype(np.float32)
    return z, run_artifact("fake", tmp_path / "artifact", spec, 1, z, label)


@pytest.mark.usefixtures("fake_target")
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_any_number_of_images_runs_in_the_artifacts_own_batch(tmp_path: Path, count: int) -> None:
    z, x = run(tmp_path, "fine", count)
    np.testing.assert_array_equal(x, np.tanh(z))


@pytest.mark.usefixtures("fake_target")
def test_labels_reach_the_runner(tmp_path: Path) -> None:
    label = np.array([1, 2, 3])
    z, x = run(tmp_path, "fine", 3, ExportSpec("fp32", (2, 1, 4, 4), 10), label)
    np.testing.assert_allclose(x, np.tanh(z) * (label / 10)[:, None, None, None], rtol=1e-6)


@pytest.mark.usefixtures("fake_target")
def test_no_runtime_here_is_none(tmp_path: Path) -> None:
    assert run(tmp_path, "nowhere")[1] is None


@pytest.mark.usefixtures("fake_target")
@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("segfault", r"^fakert 7.0 crashed \(SIGSEGV\) while running .*/artifact$"),
        ("die-loading", r"^fakert 7.0 crashed \(SIGSEGV\) while loading .*/artifact$"),
        ("abort", r"^fakert 7.0 aborted \(SIGABRT\) while running .*/artifact: Check failed: arena$"),
        ("kill", r"^fakert 7.0 was killed \(SIGKILL\) while running .*/artifact: most often .* memory$"),
        ("exit", r"^fakert 7.0 ended its process \(exit code 3\) while running .*/artifact$"),
        ("bad-file", r"^fakert does not read this file$"),
        ("bug", r"/artifact does not run as a fake artifact: RuntimeError: tensor arena too small$"),
        ("nan", r"^fakert returned values that are not finite, first in image 0$"),
        ("shape", r"^fakert returned an output of shape \(2, 1, 3, 4\), not \(2, 1, 4, 4\)$"),
    ],
)
def test_each_death_is_a_sentence(tmp_path: Path, word: str, sentence: str) -> None:
    with pytest.raises(ArtifactError, match=sentence):
        run(tmp_path, word)


@pytest.mark.usefixtures("fake_target")
def test_a_stall_ends(tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("stall")
    np.save(tmp_path / "z.npy", np.zeros((1, 1, 4, 4), np.float32))
    request = Request(target="fake", artifact=str(tmp_path / "artifact"), spec=SPEC, threads=1)
    with pytest.raises(ArtifactError, match=r"made no progress for 2 s while running"):
        in_child(request, tmp_path, stall_seconds=2)


def test_an_unknown_target_travels_as_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no target 'nope'"):
        run_artifact("nope", tmp_path, SPEC, 1, np.zeros((1, 1, 4, 4), np.float32), None)


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """The child exits when the parent's end of the pipe closes."""
    code = "import os, threading, time; from rdd_edge.benchmarking.worker import _end_with_parent as end\n"
    code += "threading.Thread(target=end, daemon=True).start(); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=20) == 1


def test_supervise_reports_each_stage(tmp_path: Path) -> None:
    recorder = Recorder()
    code = "import sys, time, pathlib; from rdd_edge.benchmarking.worker import ProgressFile\n"
    code += "r = ProgressFile(pathlib.Path(sys.argv[1])); r('load', 0); time.sleep(.3); r('run', 7); time.sleep(.3)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with reporting_to(recorder):
        assert supervise(command, dict(os.environ), tmp_path, 60) == 0
    assert recorder.counts == [("load", 0), ("run", 7)]


def test_every_error_name_maps_back() -> None:
    assert _error_class("UsageError") is UsageError
    assert _error_class("print") is ArtifactError


@pytest.mark.usefixtures("fake_target")
def test_stages_of_an_artifact_that_an_export_runs_are_not_shown(tmp_path: Path) -> None:
    recorder = Recorder()
    with reporting_to(recorder):
        run(tmp_path, "fine")
    assert recorder.stages == []
