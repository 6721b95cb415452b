"""Networks of the papers' sizes, random weights, through every target."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from networks import loud

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import build_unet
from rdd_edge.diffusion.saving import save_checkpoint
from rdd_edge.distillation.presets import preset
from rdd_edge.errors import ArtifactError
from rdd_edge.exporting.pipeline import export_bundles
from rdd_edge.exporting.program import export_program
from rdd_edge.exporting.rewrites import apply_rewrites
from rdd_edge.portable.noise import normals
from rdd_edge.targets import load_target, target_names
from rdd_edge.targets.base import ExportSpec
from rdd_edge.targets.ios.convert import convert
from rdd_edge.targets.ios.runner import EvaluatorRunner


def student(folder: Path, name: str, side: int, classes: int | None) -> Path:
    unet = build_unet(preset(name).network.unet((3, side, side), classes), 0)
    save_checkpoint(folder, unet, role="student", method="random", sampling_steps=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("target", target_names())
def test_a_conditional_network_of_imagenets_size_is_exact_in_fp32(tmp_path: Path, target: str) -> None:
    """116.5 million parameters: compiling takes minutes, and so do 32 images."""
    checkpoint = student(tmp_path / "student", "imagenet64", 64, 1000)
    (bundle,) = export_bundles(checkpoint, (target,), "fp32", tmp_path / "bundles")
    manifest = bundle.manifest
    assert manifest.label is not None and manifest.label.high == 999
    assert manifest.parity.psnr_db is not None
    assert manifest.parity.psnr_db >= load_target(target).precision("fp32").parity_db


@pytest.mark.slow
def test_the_papers_network_goes_to_three_targets_in_three_minutes_and_twelve_gibibytes(tmp_path: Path) -> None:
    checkpoint = student(tmp_path / "student", "cifar10", 32, None)
    every = [part for target in target_names() for part in ("--target", target)]
    begun = time.monotonic()
    command = [sys.executable, "-m", "rdd_edge", "export", str(checkpoint), *every, "--out", str(tmp_path / "bundles")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert all(line.startswith(("export", str(tmp_path))) for line in lines if line.strip()), lines  # nobody else talks
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 12 * 2**20  # of kilobytes
    assert elapsed < 180


@pytest.mark.slow
def test_activations_beyond_float16_squares_stay_exact_on_ios(tmp_path: Path) -> None:
    """The paper's network with maps 300 times as large, whose squares overflow in Core ML's own conversion."""
    unet = loud(build_unet(preset("cifar10").network.unet((3, 32, 32), None), 0), 300.0)
    save_checkpoint(tmp_path / "student", unet, role="student", method="random", sampling_steps=1)
    (bundle,) = export_bundles(tmp_path / "student", ("ios",), "fp16", tmp_path / "bundles")
    assert bundle.manifest.parity.psnr_db is not None
    assert bundle.manifest.parity.psnr_db >= 60.0
    spec = ExportSpec("fp16", (1, 3, 32, 32), None)
    program = apply_rewrites(export_program(read_checkpoint(tmp_path / "student").load(), spec.input_shape, None), ())
    convert(program, spec).save(str(tmp_path / "naive.mlpackage"))
    with pytest.raises(ArtifactError, match="overflows float16"):
        EvaluatorRunner(tmp_path / "naive.mlpackage", 1).run(normals(0, range(1), (3, 32, 32)), None)
