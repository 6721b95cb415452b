"""Fixtures shared by the whole suite: small networks with random weights, made once a session and never written to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from networks import small_unet


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-step student's folder: 8 × 8 × 1, channels (32, 64), unconditional, random weights. Read only."""
    from rdd_edge.checkpoint import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(folder, small_unet(), role="student", method="random", sampling_steps=1)
    return folder


@pytest.fixture(scope="session")
def tiny_conditional_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 10 classes."""
    from rdd_edge.checkpoint import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "conditional"
    model = small_unet(seed=1, num_class_embeds=10)
    save_checkpoint(folder, model, role="student", method="random", sampling_steps=1)
    return folder


@pytest.fixture
def fake_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target `fake` of tests/fakes is found, here and in child processes."""
    add_fake_target(monkeypatch)


def add_fake_target(monkeypatch: pytest.MonkeyPatch) -> None:
    import rdd_edge.targets

    fakes = Path(__file__).parent / "fakes"
    monkeypatch.setattr(rdd_edge.targets, "__path__", [*rdd_edge.targets.__path__, str(fakes / "targets")])
    monkeypatch.setenv("PYTHONPATH", str(fakes))


@pytest.fixture
def make_bundle(tmp_path: Path, fake_target: None) -> Callable[..., Path]:
    """make_bundle(word): a bundle of the target `fake` whose artifact does what the word says."""
    return partial(write_fake_bundle, tmp_path)


def write_fake_bundle(
    parent: Path,
    word: str = "fine",
    *,
    name: str = "bundle",
    batch: int = 1,
    classes: int | None = None,
    side: int = 8,
    channels: int = 1,
    checkpoint_sha256: str = "0" * 64,
) -> Path:
    import numpy as np

    from rdd_edge import noise
    from rdd_edge.bundle import Manifest, Parity, TensorSpec
    from rdd_edge.files import tree_sha256, write_bytes, write_model
    from rdd_edge.results import AccuracyPlan, PerformancePlan, Plan

    folder, shape = parent / name, (channels, side, side)
    z = noise.normals(7, range(2), shape)
    write_bytes(folder / "model.fake", word.encode())
    write_bytes(folder / "parity" / "z.f32", z.tobytes())
    write_bytes(folder / "parity" / "x.f32", np.tanh(z).tobytes())
    if classes:
        write_bytes(folder / "parity" / "label.i64", noise.labels(range(2), classes).tobytes())
    manifest = Manifest(
        target="fake",
        precision="fp32",
        artifact="model.fake",
        input=TensorSpec(name="z", shape=(batch, *shape), dtype="float32"),
        label=TensorSpec(name="label", shape=(batch,), dtype="int64", low=0, high=classes - 1) if classes else None,
        output=TensorSpec(name="x", shape=(batch, *shape), dtype="float32", low=-1, high=1),
        checkpoint_sha256=checkpoint_sha256,
        quantization=None,
        parity=Parity(samples=2, seed=7, psnr_db=None, worst_psnr_db=None, reason="not measured in this fixture"),
        rewrites=(),
        tool_versions={"fake": "7.0"},
        default_plan=Plan(
            performance=PerformancePlan(warmup=2, runs=5, seconds=0),
            accuracy=AccuracyPlan(samples=70, seed=3, floats=10),
            threads=1,
        ),
        files=tree_sha256(folder),
    )
    write_model(folder / "manifest.json", manifest)
    return folder
