"""Comparisons of training runs and ablations: results, drawings, and that no work is repeated."""

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY, Recorder, tiny

from rdd_edge.console import reporting_to
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import RunFile
from rdd_edge.errors import MissingError, UsageError
from rdd_edge.evaluation.ablation import study
from rdd_edge.evaluation.checkpoint import evaluate
from rdd_edge.evaluation.comparison import Entry, compare, draw_comparison
from rdd_edge.evaluation.sample_quality import Estimate, Neighbors
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.files import write_model
from rdd_edge.reading.documents import read_model

SHORT = ("first_steps=4", "base_steps=2")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def rdd(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "rdd"
    distill(tiny(*SHORT), out, device="cpu")
    return out


def test_methods_side_by_side(rdd, tmp_path, monkeypatch):
    pd, single = tmp_path / "pd", tmp_path / "sfddm"
    distill(tiny(*SHORT, method="pd"), pd, start_from=rdd, device="cpu")
    chosen = resolve("digits", method="sfddm", settings=[*TINY, *SHORT], sfddm_steps=2)
    distill(chosen, single, start_from=rdd, device="cpu")
    found = compare([rdd, pd, single], 60, 0, tmp_path / "table.md")
    keys = [(entry.method, entry.steps) for entry in found.entries]
    # The teacher and the two-step student that all have in common are measured once.
    refined = [(f"{method}+refined", 1) for method in ("rdd", "pd")]
    assert keys == [("ddim", 2), ("ddim", 1), ("pd", 2), ("rdd", 1), refined[0], ("pd", 1), refined[1], ("sfddm", 2)]
    assert all(len(entry.distances) == 1 for entry in found.entries)
    real, judge = evaluation_sources(rdd, None, None)
    alone = evaluate(rdd / "student-1", (1,), 60, 0, real, judge)
    assert found.entries[3].distances == (alone.rows[0].distance,)
    assert (tmp_path / "table.md").read_text() == found.markdown()
    assert f"| rdd | – | {alone.rows[0].distance:.3f} |" in found.markdown()
    names = draw_comparison(found, tmp_path / "grid.png")
    assert names[0] == "ddim 2" and len(names) == 8
    image = np.asarray(Image.open(tmp_path / "grid.png"))
    assert image.shape == (8 * 50 - 2, 8 * 50 - 2, 4)
    monkeypatch.setattr("rdd_edge.evaluation.comparison.evaluate", lambda *_: pytest.fail("measured again"))
    assert compare([rdd, pd, single], 60, 0) == found


def test_repetitions_give_a_mean_and_a_spread():
    entry = Entry(
        method="rdd", steps=1, checkpoints=("a", "b"), distances=(1.0, 2.0), neighbors=(neighbors(0.4), neighbors(0.6))
    )
    assert entry.text == "1.500 ± 0.707"
    assert entry.neighbor_texts == ["0.500 ± 0.141"] * 4 + ["–"]


def neighbors(value):
    one = Estimate(value=value, low=None, high=None)
    return Neighbors(precision=one, recall=one, density=one, coverage=one, copies=None)


def test_only_runs_that_differ_in_the_seed_are_repetitions(rdd, tmp_path, monkeypatch):
    """Each repetition has noise of its own; other settings make rows, but not of what does not depend on them."""
    other, hot = tmp_path / "other", tmp_path / "hot"
    distill(tiny(*SHORT, "seed=1"), other, device="cpu")
    distill(tiny(*SHORT, "alpha=7", "seed=2", "refining.shift=2"), hot, device="cpu")
    drawn = []
    monkeypatch.setattr("rdd_edge.evaluation.comparison.evaluate", recording(drawn))
    found = compare([rdd, other, hot], 60, 2**64 - 1)
    rows = {(entry.method, entry.steps): [Path(path) for path in entry.checkpoints] for entry in found.entries}
    assert rows == {
        ("ddim", 2): [run / "teacher" for run in (rdd, other, hot)],
        ("ddim", 1): [run / "teacher" for run in (rdd, other, hot)],
        ("pd", 2): [run / "student-2" for run in (rdd, other, hot)],
        ("rdd (alpha=100.0)", 1): [rdd / "student-1", other / "student-1"],
        ("rdd (alpha=7.0)", 1): [hot / "student-1"],
        ("rdd+refined (alpha=100.0, refining.shift=1)", 1): [rdd / "refined", other / "refined"],
        ("rdd+refined (alpha=7.0, refining.shift=2)", 1): [hot / "refined"],
    }
    assert len(found.real) == 3 and len({real.precision.value for real in found.real}) == 3  # a judge for each seed
    assert {seed for folder, seed in drawn if folder == other / "student-1"} == {0}  # the seed after the last one
    assert {seed for folder, seed in drawn if folder == hot / "student-1"} == {2**64 - 1}
    assert "seeds 18446744073709551615 to" in found.markdown()
    assert "| rdd (alpha=7.0) 1 |" in found.markdown()


def test_judges_of_different_settings_are_refused(rdd, tmp_path):
    shutil.copytree(rdd, tmp_path / "other")
    path = tmp_path / "other" / "run.json"
    file = read_model(path, RunFile)
    judge = file.preset.judge.model_copy(update={"widths": (4, 9)})
    write_model(path, file.model_copy(update={"preset": file.preset.model_copy(update={"judge": judge})}))
    with pytest.raises(UsageError, match="give --extractor"):
        compare([rdd, tmp_path / "other"], 60, 0)


def recording(drawn):
    def recorded(folder, steps, count, seed, *others):
        drawn.append((folder, seed))
        return evaluate(folder, steps, count, seed, *others)

    return recorded


def test_a_run_without_students_is_a_sentence(tmp_path):
    with pytest.raises(MissingError):
        compare([tmp_path], 10, 0)


def study_with(reporter, out, base):
    with reporting_to(reporter):
        return study(tiny(*SHORT), "tau_m", [0.05, 0.4, 2.0], out, start_from=base, count=50)


def test_a_study_shares_the_base_resumes_and_draws(rdd, tmp_path):
    out, reporter = tmp_path / "study", Recorder()
    found = study_with(reporter, out, rdd)
    assert [name for name, _ in reporter.stages if name.startswith("student")] == ["student-1"] * 3
    assert len(set(found.distances)) == 3
    assert f"| 0.4 | {found.distances[1]:.3f} |" in (out / "study.md").read_text()
    root = ElementTree.fromstring((out / "study.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 3
    again = Recorder()
    assert study_with(again, out, rdd) == found
    assert again.stages == []


@pytest.mark.parametrize(
    ("vary", "values", "says"),
    [("tau", [1.0, 2.0], "choose from tau_is"), ("v", [0.5, 2.0], "memory.draw"), ("alpha", [1.0], "at least two")],
)
def test_a_study_that_cannot_be_is_refused_before_training(tmp_path, vary, values, says):
    with pytest.raises(UsageError, match=says):
        study(tiny(), vary, values, tmp_path / "study")
    assert not (tmp_path / "study").exists()
