"""PSNR of Android's int8 artifacts to the student, by the observer of activation ranges and the calibration samples.

python benchmarks/observers.py RUN --observer range running histogram --samples 8 64 256
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from rdd_edge.benchmarking.isolation import run_artifact
from rdd_edge.dependencies import silenced
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.exporting.parity import calibration_set, make_vectors
from rdd_edge.exporting.program import export_program
from rdd_edge.exporting.rewrites import apply_rewrites
from rdd_edge.portable.psnr import psnr_per_image
from rdd_edge.targets.android import target
from rdd_edge.targets.android.quantize import OBSERVERS, quantize
from rdd_edge.targets.base import ExportSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a trained student; random weights give no meaningful result")
    parser.add_argument("--observer", nargs="+", choices=tuple(OBSERVERS), default=list(OBSERVERS))
    parser.add_argument("--samples", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--images", type=int, default=64)
    arguments = parser.parse_args()
    checkpoint = read_checkpoint(arguments.checkpoint)
    shape, classes = checkpoint.image_shape, checkpoint.classes
    spec = ExportSpec("int8", (1, *shape), classes)
    unet = checkpoint.load()
    with silenced():
        program = apply_rewrites(
            export_program(unet, spec.input_shape, spec.classes), target.precision("int8").rewrites
        )
    vectors = make_vectors(unet, shape, classes, arguments.images)
    print("| observer | calibration samples | PSNR, dB, median | worst |\n|---|---:|---:|---:|")
    for name in arguments.observer:
        for samples in arguments.samples:
            calibration = calibration_set(shape, classes, samples)
            with tempfile.TemporaryDirectory() as folder, silenced():
                quantized = quantize(program, spec, calibration, (), name)
                artifact = target.lower(quantized, spec, Path(folder))
                x = run_artifact(target.name, artifact.path, spec, 2, vectors.z, vectors.label)
            assert x is not None  # ExecuTorch runs wherever it exports
            psnr = psnr_per_image(x, vectors.x, 2.0)
            print(f"| {name} | {samples} | {np.median(psnr):.1f} | {psnr.min():.1f} |", flush=True)


if __name__ == "__main__":
    main()
