"""Students of another shape, and class-conditional runs from end to end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY, Recorder, tiny, train, weights

from rdd_edge.data import load_images
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import one_step
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import read_training_run, stage_names
from rdd_edge.errors import DataError, MissingError
from rdd_edge.evaluation.checkpoint import evaluate
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.portable.noise import normals, to_uint8

SHORT = ("first_steps=4", "base_steps=2")


def test_a_smaller_student_is_taught_at_the_teachers_step_count_and_halved(tmp_path):
    (tmp_path / "small.json").write_text('{"channels": [4, 8], "blocks": 1, "groups": 4}')
    chosen = resolve(
        "digits", settings=[*TINY, *SHORT, "pd.steps=25"], student_config=tmp_path / "small.json", method="pd"
    )
    assert stage_names(chosen)[2:] == ("teacher", "student-4", "student-2", "student-1", "refined")
    distill(chosen, tmp_path / "run", device="cpu")
    assert read_checkpoint(tmp_path / "run/teacher").config["block_out_channels"] == [8, 16]
    for name in ("student-4", "student-2", "student-1", "refined"):
        assert read_checkpoint(tmp_path / "run" / name).config["block_out_channels"] == [4, 8]
    assert read_checkpoint(tmp_path / "run/student-4").card.sampling_steps == 4


def test_another_student_starts_from_the_same_teacher(tmp_path):
    distill(tiny(*SHORT, method="pd"), tmp_path / "base", device="cpu", until="teacher")
    (tmp_path / "small.json").write_text('{"channels": [4, 8], "blocks": 1, "groups": 4}')
    chosen = resolve("digits", settings=[*TINY, *SHORT], student_config=tmp_path / "small.json", method="pd")
    reporter = Recorder()
    train(chosen, tmp_path / "run", reporter, start_from=tmp_path / "base", device="cpu", until="student-4")
    assert [name for name, _ in reporter.stages] == ["student-4"]
    assert weights(tmp_path / "run")["teacher"] == weights(tmp_path / "base")["teacher"]


def test_a_missing_student_config_is_a_sentence(tmp_path):
    with pytest.raises(MissingError, match="nowhere"):
        resolve("digits", student_config=tmp_path / "nowhere.json")


def test_a_conditional_run_from_end_to_end(tmp_path):
    run = tmp_path / "run"
    distill(tiny(*SHORT, "conditional=true", "teacher.steps=30"), run, device="cpu")
    found = read_checkpoint(run)
    assert found.classes == 10 and found.class_names == tuple("0123456789")
    assert read_training_run(run).classes == found.class_names
    z, labels, unet = torch.from_numpy(normals(0, range(12), found.image_shape)), torch.arange(12) % 10, found.load()
    with torch.no_grad():
        x, other = (one_step(unet, z, chosen) for chosen in (labels, (labels + 1) % 10))
    np.testing.assert_array_equal(sample_images(found, 12, 1, 0), to_uint8(x.numpy()))
    assert (x - other).abs().amax((1, 2, 3)).min() > 1 / 127.5  # with another label every image is another
    assert sample_images(read_checkpoint(run / "teacher"), 12, 2, 0).shape == (12, 8, 8, 1)
    real, judge = evaluation_sources(run, None, None)
    assert evaluate(run, (), 40, 0, real, judge).rows[0].distance > 0


def test_labels_missing_for_a_conditional_model_are_a_sentence_before_any_folder(tmp_path):
    data = replace(load_images("digits"), labels=None, classes=None)
    with pytest.raises(DataError, match="has no labels"):
        distill(tiny("conditional=true"), tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()
