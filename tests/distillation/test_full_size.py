"""Every stage of the CIFAR-10 presets at full size, a few steps each, from parquet files.

RDD_EDGE_TEST_CIFAR10 names a folder of CIFAR-10's own parquet files to take the images from in place of random ones.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from parquets import write_parquet

from rdd_edge.data import ImageSet, load_images
from rdd_edge.data.images import content_sha256
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.distillation.config import Preset
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import stage_names
from rdd_edge.metrics.classifiers import load_feature_network

COUNT = 20


@pytest.fixture
def data(tmp_path, monkeypatch) -> ImageSet:
    """The first images of parquet files in Hugging Face's layout."""
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    own = os.environ.get("RDD_EDGE_TEST_CIFAR10")
    found = load_images(own or str(write_parquet(tmp_path / "data", COUNT)))
    images, labels = np.array(found.images[:COUNT]), found.labels[:COUNT]
    return ImageSet(found.name, images, labels, found.classes, content_sha256(images, labels, found.classes))


def short(name: str, *more: str, **options) -> Preset:
    settings = [f"{stage}.{key}={value}" for stage in ("teacher", "pd", "distillation", "refining.training")
                for key, value in (("steps", 2), ("batch", 2))]  # fmt: skip
    settings += ["extractor_training.epochs=1", "extractor_training.batch=4", "first_steps=16"]
    return resolve(name, settings=[*settings, "memory.capacity=8", "memory.draw=2", *more], **options)


def last_line(run: Path, stage: str) -> dict[str, float | None]:
    return json.loads((run / "logs" / f"{stage}.jsonl").read_text().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "cifar10-edge"])
def test_every_stage_runs_at_full_size(tmp_path, data, name):
    preset, run = short(name), tmp_path / "run"
    distill(preset, run, data=data, device="cpu")
    halvings = ("student-8", "student-4", "student-2", "student-1")
    assert stage_names(preset) == ("extractor", "teacher", *halvings, "refined")
    assert all((run / stage).is_dir() for stage in stage_names(preset))
    assert read_checkpoint(run).image_shape == (3, 32, 32)
    assert all(last_line(run, "student-1")[term] is not None for term in ("cfd", "is_p2p", "m_p2p"))
    features = load_feature_network(run / "extractor")[1]
    widths = {"cifar10": 1920, "cifar10-edge": 276}
    assert features(torch.zeros(1, 3, 32, 32)).shape == (1, widths[name], 4, 4)


@pytest.mark.slow
def test_single_fold_a_smaller_student_and_a_foreign_teacher_run_at_full_size(tmp_path, data):
    """The stages that the halvings alone do not have, on the paper's network."""
    base = tmp_path / "base"
    distill(short("cifar10"), base, data=data, device="cpu", until="teacher")
    single = short("cifar10", method="sfddm", sfddm_steps=3)
    distill(single, tmp_path / "sfddm", data=data, start_from=base, device="cpu")
    assert last_line(tmp_path / "sfddm", "student-3")["hidden"] is not None
    edge = {"channels": [64, 128, 128, 128], "blocks": 2, "attention": [1]}
    (tmp_path / "edge.json").write_text(json.dumps(edge))
    smaller = short("cifar10", student_config=tmp_path / "edge.json")
    distill(smaller, tmp_path / "edge", data=data, start_from=base, device="cpu", until="student-16")
    assert read_checkpoint(tmp_path / "edge" / "student-16").config["block_out_channels"] == [64, 128, 128, 128]
    foreign = short("cifar10", teacher=base / "teacher")
    distill(foreign, tmp_path / "foreign", data=data, device="cpu", until="teacher")
    assert read_checkpoint(tmp_path / "foreign" / "teacher").card.method == "conversion"
