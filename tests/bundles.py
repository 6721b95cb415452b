"""Bundles of the target `fake`, written straight to disk, and the way that target is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def add_fake_target(monkeypatch: pytest.MonkeyPatch) -> None:
    import rdd_edge.targets

    fakes = Path(__file__).parent / "fakes"
    monkeypatch.setattr(rdd_edge.targets, "__path__", [*rdd_edge.targets.__path__, str(fakes / "targets")])
    found = [str(fakes), os.environ.get("PYTHONPATH", "")]  # a checkout beside the installed one stays found
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))


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
    target: str = "fake",
    artifact: bytes | None = None,
    backend: str = "xnnpack",
) -> Path:
    import numpy as np

    from rdd_edge.bundle import (
        AccuracyPlan,
        Manifest,
        Needs,
        Parity,
        PerformancePlan,
        Plan,
        Requirement,
        TensorSpec,
    )
    from rdd_edge.exporting.harness import add_contract, add_harness
    from rdd_edge.files import tree_sha256, write_bytes, write_model
    from rdd_edge.portable import noise

    folder, shape = parent / name, (channels, side, side)
    z = noise.normals(7, range(2), shape)
    write_bytes(folder / "model.fake", word.encode() if artifact is None else artifact)
    add_contract(folder)
    add_harness(target, folder)
    write_bytes(folder / "parity" / "z.f32", z.tobytes())
    write_bytes(folder / "parity" / "x.f32", np.tanh(z).tobytes())
    if classes:
        write_bytes(folder / "parity" / "label.i64", noise.labels(range(2), classes).tobytes())
    manifest = Manifest(
        target=target,
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
        needs=Needs(
            backend=backend,
            runtime=Requirement(name="fakert", least="7.0", below="8"),
            system=Requirement(name="Android API", least="23"),
            architectures=("arm64-v8a",),
            compute_units=None,
        ),
        default_plan=Plan(
            performance=PerformancePlan(warmup=2, runs=5, seconds=0, starts=1),
            accuracy=AccuracyPlan(samples=70, seed=3, floats=10),
            threads=1,
        ),
        files=tree_sha256(folder),
    )
    write_model(folder / "manifest.json", manifest)
    return folder
