"""One-step students of other tools: the exported image against diffusers' own schedulers, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from commands import run
from networks import small_unet
from numpy.typing import NDArray

from rdd_edge.bundle import read_bundle
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.foreign_student import one_step_student
from rdd_edge.diffusion.network import one_step

TIMESTEP = 400  # where α is 0.44 on the linear schedule: at the last, 0.006, clipping would hide the prediction


def pipeline_folder(path: Path, prediction: str = "epsilon", **scheduler: object) -> Path:
    """A diffusers pipeline: unet/ and scheduler/."""
    small_unet(seed=3).save_pretrained(path / "unet")
    settings = {"beta_schedule": "linear", "prediction_type": prediction, **scheduler}
    diffusers.DDPMScheduler(**settings).save_pretrained(path / "scheduler")
    return path


def by_diffusers(folder: Path, kind: str, z: torch.Tensor, timestep: int) -> NDArray[np.float32]:
    """x̂ of one step of a scheduler of diffusers, clipped as it clips."""
    unet = diffusers.UNet2DModel.from_pretrained(folder / "unet").eval()
    scheduler = getattr(diffusers, kind).from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(1000)
    with torch.no_grad():
        x = scheduler.step(unet(z, timestep).sample, timestep, z).pred_original_sample
    return x.numpy()


@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize(("word", "prediction"), [("epsilon", "epsilon"), ("v", "v_prediction"), ("sample", "sample")])
@pytest.mark.parametrize("timestep", [20, TIMESTEP, None])
def test_the_image_is_that_of_diffusers(
    tmp_path: Path, word: str, prediction: str, kind: str, timestep: int | None
) -> None:
    folder = pipeline_folder(tmp_path, prediction)
    student = one_step_student(read_checkpoint(folder), word, timestep).load()
    z = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = one_step(student, z).numpy()
    theirs = by_diffusers(folder, kind, z, 999 if timestep is None else timestep)
    np.testing.assert_allclose(ours, theirs, atol=2e-3 if timestep is None and word == "epsilon" else 1e-5)


def test_export_and_bench_of_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, said = pipeline_folder(tmp_path / "model"), ("--prediction", "epsilon", "--timestep", TIMESTEP)
    code, _, err = run(
        monkeypatch, capsys, "export", folder, *said, "--target", "jetson", "--precision", "fp32", "--out", tmp_path
    )
    assert code == 0, err
    assert read_checkpoint(folder).name == "model"  # not "unet"
    bundle = read_bundle(tmp_path / "jetson-fp32")
    z, _, x = bundle.parity_vectors()
    np.testing.assert_allclose(x, by_diffusers(folder, "DDPMScheduler", torch.from_numpy(z), TIMESTEP), atol=1e-5)
    assert np.abs(x).std() > 0.1  # not all clipped
    code = (bundle.folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=bundle.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[1]) > 80  # of the page's own Python code
    manifest = bundle.manifest
    assert manifest.parity.psnr_db is not None and manifest.parity.psnr_db > 80  # the artifact itself
    assert manifest.schedule == "own" and manifest.conversion is not None
    assert (manifest.conversion.prediction, manifest.conversion.timestep) == ("epsilon", TIMESTEP)

    short = ("--n", 4, "--runs", 1, "--seconds", 0, "--starts", 1)
    code, _, err = run(monkeypatch, capsys, "bench", folder, *said, "--device", "server", *short, "--out", "server")
    assert code == 0, err
    samples = np.fromfile("server/samples.f32", "<f4").reshape(4, 1, 8, 8)
    from rdd_edge.portable.noise import normals

    noise = torch.from_numpy(normals(0, range(4), (1, 8, 8)))
    np.testing.assert_allclose(samples, by_diffusers(folder, "DDPMScheduler", noise, TIMESTEP), atol=1e-5)


@pytest.fixture(autouse=True)
def _work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "has no card that calls it a one-step student: distil it"),
        (("--timestep", 3), "--timestep 3 needs --prediction"),
        (("--prediction", "noise"), "--prediction noise is not valid: choose from epsilon, v, sample"),
        (("--prediction", "v", "--timestep", 1000), "--timestep 1000 is not in the schedule"),
        (("--prediction", "epsilon"), "is pure noise, and there the predicted noise determines no image"),
    ],
)
def test_what_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[object, ...],
    sentence: str,
) -> None:  # fmt: skip
    folder = pipeline_folder(tmp_path / "model", rescale_betas_zero_snr=True)
    code, _, err = run(monkeypatch, capsys, "export", folder, *words, "--target", "jetson", "--out", "bundles")
    assert code == 2 and sentence in err
    assert not Path("bundles").exists()


def test_a_student_of_ours_needs_no_prediction(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--prediction", "epsilon", "--target", "jetson", "--out", "bundles")
    code, _, err = run(monkeypatch, capsys, "export", tiny_checkpoint, *words)
    assert code == 2 and "is a student of rdd-edge, which predicts the image" in err


def test_thresholding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pipeline_folder(tmp_path / "model")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholding": True}))
    words = ("--prediction", "epsilon", "--target", "jetson", "--out", "bundles")
    code, _, err = run(monkeypatch, capsys, "export", folder, *words)
    assert code == 2 and "asks for thresholding" in err
