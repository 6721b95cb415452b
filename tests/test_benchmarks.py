"""The training benchmarks run and print what they are read for; no time is judged here."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def printed(monkeypatch, capsys, name: str, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    return capsys.readouterr().out


def test_train_step_prints_rate_shares_and_peak(monkeypatch, capsys):
    out = printed(monkeypatch, capsys, "train_step.py", "--batch", "4", "--steps", "1", "--device", "cpu")
    assert re.search(r"^rdd: step \d+\.\d ms, \d+ images/s, batch 4$", out, re.MULTILINE)
    for part in ("teacher", "student", "extractor", "losses", "rest: data, optimizer, host"):
        assert re.search(rf"^  {part} +\d+\.\d ms +\d+\.\d%$", out, re.MULTILINE)
    assert re.search(r"GFLOP/s of a matrix peak of \d+\.\d: \d+\.\d%", out)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_losses_prints_each_forms_distance_from_the_float64_gradient(monkeypatch, capsys):
    out = printed(
        monkeypatch, capsys, "losses.py", "--images", "4", "--side", "4", "--channels", "64", "--contrast", "32"
    )
    found = re.findall(r"gradient +(\S+) off +plain +(\S+) off float64's; (\S+) from each other", out)
    assert len(found) == 3
    assert all(float(number) < 1e-3 for line in found for number in line)
    assert len(re.findall("time .* ratio", out)) == len(re.findall("extra memory .* ratio", out)) == 3


@pytest.mark.arm64
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user and g++-aarch64-linux-gnu")
def test_arm64_ranks_known_pairs_and_counts_the_ways(monkeypatch, capsys, tiny_checkpoint):
    monkeypatch.syspath_prepend(BENCHMARKS)
    out = printed(
        monkeypatch, capsys, "arm64.py", "--checkpoint", str(tiny_checkpoint), "--only", "recipe fp32,ours fp32"
    )
    pairs = re.findall(r"^\| .* \| .* \| (\d+\.\d\d) \| .* \|$", out, re.MULTILINE)
    assert len(pairs) == 5
    assert all(float(ratio) > 1 for ratio in pairs)
    recipe, ours = (float(count) for count in re.findall(r"fp32 \| (\d+\.\d\d) \|", out))
    assert 0 < ours < recipe


@pytest.mark.arm64
@pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason="needs qemu-user-static")
def test_arm64_parity_goes_on_where_it_was(monkeypatch, capsys, tmp_path, tiny_checkpoint):
    words = ["--digits", str(tiny_checkpoint), "--presets", "digits", "--precisions", "fp32", "--work", str(tmp_path)]
    first = printed(monkeypatch, capsys, "arm64_parity.py", *words, "--cpus", "cortex-a53")
    assert re.search(r"^\| digits \| fp32 \| 32 \| 1\d\d\.\d \(1\d\d\.\d\) \|$", first, re.MULTILINE)
    monkeypatch.setattr("rdd_edge.benchmarking.verify.verify_emulated", None)
    assert printed(monkeypatch, capsys, "arm64_parity.py", *words, "--cpus", "cortex-a53") == first
