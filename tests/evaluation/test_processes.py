"""`sample` and `evaluate` under torchrun: several processes give the result of one, and print it once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.drawing.grid import save_grid
from rdd_edge.evaluation.checkpoint import evaluate
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.metrics.classifiers import save_classifier
from rdd_edge.metrics.networks import Classifier, ExtractorConfig

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rdd_edge"]

KEYS = ("distance", "distance_low", "distance_high")  # the sums of the real statistics are in another order


def run(cache: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RDD_EDGE_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*TWO, *words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    shape = ExtractorConfig(name="judge", architecture="cnn", widths=(4, 8), image_shape=(1, 8, 8), classes=10)
    folder = tmp_path_factory.mktemp("judge") / "judge"
    save_classifier(folder, Classifier(shape))
    return folder


def test_two_processes_measure_what_one_measures(tmp_path, monkeypatch, tiny_conditional_checkpoint, judge):
    """600 samples are three blocks, two for one process and one for the other; both compute the real statistics."""
    words = ("evaluate", str(tiny_conditional_checkpoint), "-n", "600", "--steps", "1", "--steps", "2")
    words += ("--data", "digits", "--extractor", str(judge), "--out", str(tmp_path / "two.json"))
    assert len(run(tmp_path / "two", *words).splitlines()) == 5  # a head, two rows, the real images and a note
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "one"))
    real, extractor = evaluation_sources(None, "digits", judge)
    alone = evaluate(tiny_conditional_checkpoint, (1, 2), 600, 0, real, extractor)
    one, two = json.loads(alone.model_dump_json()), json.loads((tmp_path / "two.json").read_text())
    distances = [[row.pop(key) for row in side["rows"] for key in KEYS] for side in (one, two)]
    assert distances[1] == pytest.approx(distances[0], rel=1e-9)
    assert one == two


def test_two_processes_draw_the_grid_of_one(tmp_path, tiny_checkpoint):
    out = tmp_path / "two.png"
    words = ("sample", str(tiny_checkpoint), "-n", "300", "--seed", "5", "--out", str(out))
    assert run(tmp_path, *words) == f"{out}: 300 images\n"
    save_grid(sample_images(read_checkpoint(tiny_checkpoint), 300, 1, 5), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == out.read_bytes()
