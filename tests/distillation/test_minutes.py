"""How the minutes of a training are shared among its stages; a whole run with minutes is in test_run.py."""

import pytest
from tiny import Recorder, tiny

from rdd_edge.console import reporting_to
from rdd_edge.distillation.budget import SHARES, plan, planned_key
from rdd_edge.distillation.config import Training
from rdd_edge.distillation.optimizer import rate_at
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import stage_names
from rdd_edge.errors import UsageError


def test_each_stage_gets_its_share_of_the_time_that_is_left():
    preset = tiny()
    ahead = stage_names(preset)[2:]
    assert ahead == ("teacher", "student-8", "student-4", "student-2", "student-1", "refined")
    total = sum(SHARES[key] for key in ("teacher.steps", "pd.steps", "distillation.steps", "refining.training.steps"))
    teacher = plan(preset, ahead, 1000.0, 0.01)
    assert teacher == preset.model_copy(
        update={"teacher": preset.teacher.model_copy(update={"steps": int(1e5 * SHARES["teacher.steps"] / total)})}
    )
    last = plan(preset, ahead[2:], 100.0, 0.5)  # three halvings and refining, two steps a second
    part = SHARES["distillation.steps"] / (SHARES["distillation.steps"] + SHARES["refining.training.steps"])
    assert last.distillation.steps == int(100 * part / 0.5 / 3)
    assert plan(preset, ahead[2:], -5.0, 0.5).distillation.steps == 1  # the time is over


def test_too_few_steps_are_said():
    preset, recorder = tiny(), Recorder()
    with reporting_to(recorder):
        for seconds in (100.0, 0.0):
            plan(preset, ("student-1",), seconds, 0.5)
    assert recorder.notes == [
        "distillation.steps=200 for 1.7 minutes",
        "distillation.steps=1 for 0.0 minutes; too few to train on this machine: give more --minutes",
    ]


def test_a_classifier_is_not_trained_for_longer_than_the_preset_says():
    preset = tiny("extractor_training.epochs=7")
    assert plan(preset, stage_names(preset), 1e6, 0.1).extractor_training.epochs == 7


def test_pds_last_students_count_twice_where_they_train_twice_as_long():
    preset = resolve("cifar10", method="pd")
    ahead = [name for name in stage_names(preset) if name.startswith("student-")]
    assert {planned_key(preset, name) for name in ahead} == {"pd.steps"}
    assert plan(preset, ahead, 1200.0, 1.0).pd.steps == 1200 // (len(ahead) + 2)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_that_are_none_are_refused_before_any_folder(tmp_path, minutes):
    with pytest.raises(UsageError, match="minutes: give a number above 0"):
        distill(tiny(), tmp_path / "run", minutes=minutes)
    assert not (tmp_path / "run").exists()


def test_a_warm_up_takes_at_most_a_fifth_of_the_steps() -> None:
    training = Training(steps=50, batch=1, rate=2.0, warmup=100, cosine=False)
    assert [rate_at(training, index) for index in (0, 4, 9, 49)] == [0.2, 1.0, 2.0, 2.0]
    assert rate_at(Training(steps=1, batch=1, rate=2.0, warmup=100), 0) == 2.0
