"""The training benchmarks run and print what they are read for; no time is judged here."""

import re
import runpy
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
