"""The command line as a user meets it: help, wrong arguments, and one sentence for every mistake."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import run
from PIL import Image
from typer.testing import CliRunner

from rdd_edge.cli import app
from rdd_edge.cli.options import parse_fraction
from rdd_edge.errors import UsageError

COMMANDS = [
    "distill", "sample", "evaluate", "compare", "study", "export", "verify", "bench", "report", "compare-bench",
    "quickstart", "doctor", "compact", "pack", "devices", "harness",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_a_sentence(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--help" in result.output
    assert "Usage: " in result.output


def test_help_imports_nothing_heavy_and_is_quick():
    heavy = ["torch", "diffusers", "executorch", "coremltools", "onnx", "onnxruntime", "jinja2", "sklearn", "PIL"]
    code = (
        "import sys, runpy; sys.argv = ['rdd-edge', '--help']\n"
        "try: runpy.run_module('rdd_edge', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"found = [name for name in {heavy} if name in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    times = []
    for _ in range(3):
        began = time.process_time(), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - began[1])
        assert done.returncode == 0, done.stderr
        assert "distill" in done.stdout
    assert min(times) < 5  # half a second on a quiet machine; this catches an import of torch on a busy one


def assert_sentence(error: str) -> None:
    """One line of ours, or the usage error of the option parser."""
    assert "Traceback" not in error
    if not error.startswith("Usage: "):
        assert error.startswith("rdd-edge: ")
        assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["distill", "--preset", "nonsense", "--out", "{tmp}/run"], 2, "there is no preset 'nonsense'"),
        (["distill", "--method", "nonsense", "--out", "{tmp}/run"], 2, "there is no method 'nonsense'"),
        (["distill", "--set", "teacher.stepz=3", "--out", "{tmp}/run"], 2, "a key of the preset"),
        (["distill", "--set", "teacher.steps=0", "--out", "{tmp}/run"], 2, "teacher.steps"),
        (["distill", "--set", "teacher.steps=many", "--out", "{tmp}/run"], 2, "teacher.steps"),
        (["distill", "--data", "{tmp}/nowhere", "--out", "{tmp}/run"], 3, "nowhere"),
        (["distill", "--image-size", "7", "--out", "{tmp}/run"], 2, "7 x 7 pixels are not multiples of 2"),
        (["distill", "--method", "sfddm", "--subsequence", "5,1,32", "--out", "{tmp}/run"], 2, "does not increase"),
        (["distill", "--method", "pd-lpips", "--out", "{tmp}/run"], 2, "give --set lpips.backbone=FILE"),
        (["sample", "{tmp}/nowhere", "--out", "{tmp}/a.png"], 3, "there is no checkpoint"),
        (["sample", "{tmp}", "--out", "{tmp}/a.png"], 3, "has no config.json"),
        (["sample", "{tiny}", "--n", "0", "--out", "{tmp}/a.png"], 2, "--n"),
        (["sample", "{tiny}", "--steps", "0", "--out", "{tmp}/a.png"], 2, "--steps"),
        (["evaluate", "{tmp}/nowhere"], 3, "there is no"),
        (["evaluate", "{tiny}", "--n", "0"], 2, "--n"),
        (["evaluate", "{tiny}"], 2, "give --data and --extractor"),
        (["evaluate", "{tiny}", "--data", "digits", "--extractor", "{tmp}"], 3, "is not an extractor"),
        (["evaluate", "{tiny}", "--reference", "{tmp}"], 2, "--reference is for benchmark runs"),
        (["export", "{tiny}", "--target", "toaster", "--out", "{tmp}/b"], 2, "there is no target 'toaster'"),
        (["export", "{tiny}", "--target", "jetson", "--precision", "w4", "--out", "{tmp}/b"], 2, "it has fp16, fp32"),
        (["export", "{tmp}/nowhere", "--target", "jetson", "--out", "{tmp}/b"], 3, "there is no checkpoint"),
        (["bench", "{tmp}/nowhere", "--out", "{tmp}/b"], 3, "there is no"),
        (["bench", "{tiny}", "--device", "host", "--out", "{tmp}/b"], 2, "export it first"),
        (["bench", "{tiny}", "--device", "moon", "--out", "{tmp}/b"], 2, "there is no device 'moon'"),
        (["bench", "{tiny}", "--device", "server", "--n", "-1", "--out", "{tmp}/b"], 2, "--n"),
        (["report", "{tmp}/nowhere", "--out", "{tmp}/r.html"], 3, "is not a benchmark run"),
        (["report", "{tmp}", "--out", "{tmp}/r.html"], 3, "is not a benchmark run"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    monkeypatch, capsys, tmp_path, tiny_checkpoint, arguments, exit_code, says
):
    words = [word.format(tmp=tmp_path, tiny=tiny_checkpoint) for word in arguments]
    code, _, error = run(monkeypatch, capsys, *words)
    assert_sentence(error)
    assert says in error
    assert code == exit_code
    assert list(tmp_path.iterdir()) == []


def test_sample_draws_the_grid(monkeypatch, capsys, tmp_path, tiny_checkpoint):
    code, out, _ = run(monkeypatch, capsys, "sample", tiny_checkpoint, "--n", 9, "--out", tmp_path / "grid.png")
    assert code == 0
    assert "9 images" in out
    image = np.asarray(Image.open(tmp_path / "grid.png"))
    assert image.shape[0] == image.shape[1] > 3 * 8
    assert image.std() > 1


def test_a_full_disk_is_a_sentence_and_keeps_the_old_file(monkeypatch, capsys, tmp_path, tiny_checkpoint):
    """/dev/full refuses every byte; a file beside it on a real disk stands for what was there."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    old = tmp_path / "grid.png"
    old.write_bytes(b"old")
    import rdd_edge.files as files

    class FullDisk:
        """`os` for that module alone: others open files of their own meanwhile."""

        def __getattr__(self, name):
            return getattr(os, name)

        def fdopen(self, handle, mode):
            os.close(handle)
            return open("/dev/full", mode)

    monkeypatch.setattr(files, "os", FullDisk())
    code, _, error = run(monkeypatch, capsys, "sample", tiny_checkpoint, "--n", 4, "--out", old)
    assert_sentence(error)
    assert "the disk is full" in error
    assert code == 10
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_evaluate_writes_its_record(monkeypatch, capsys, tmp_path, tiny_checkpoint):
    from rdd_edge.metrics.classifiers import save_classifier
    from rdd_edge.metrics.networks import Classifier, ExtractorConfig

    config = ExtractorConfig(name="tiny_cnn", architecture="cnn", widths=(4, 8), image_shape=(1, 8, 8), classes=10)
    save_classifier(tmp_path / "judge", Classifier(config))
    out = tmp_path / "eval.json"
    arguments = ["evaluate", tiny_checkpoint, "--n", 50, "--data", "digits", "--extractor", tmp_path / "judge"]
    code, text, _ = run(monkeypatch, capsys, *arguments, "--steps", 1, "--steps", 2, "--out", out)
    assert code == 0
    found = json.loads(out.read_text())
    assert found["metric"] == "fd_tiny_cnn"
    assert [row["steps"] for row in found["rows"]] == [1, 2]
    assert all(row["distance"] > found["floor"] > 0 for row in found["rows"])
    head, *rows = text.splitlines()
    assert head.split() == ["steps", "fd_tiny_cnn", "precision", "recall", "density", "coverage", "near", "copies"]
    assert [row.split()[:2] for row in rows[:3]] == [["random", "1"], ["random", "2"], ["real", "images"]]
    recall = found["rows"][0]["neighbors"]["recall"]
    assert f"{recall['value']:.3f} ± {(recall['high'] - recall['low']) / 2:.3f}" in rows[0]
    assert found["real"]["coverage"]["value"] == pytest.approx(1 - np.prod([n / (n + 50) for n in range(1792, 1797)]))


def test_fractions() -> None:
    assert parse_fraction("5%") == pytest.approx(0.05)
    assert parse_fraction("0.05") == pytest.approx(0.05)
    assert parse_fraction("2.5 %") == pytest.approx(0.025)
    for text in ("", "five", "-5%", "5%%", "nan"):
        with pytest.raises(UsageError, match="is not a fraction"):
            parse_fraction(text)
