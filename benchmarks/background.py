"""Mean level, 0 to 255, of one-step images at the pixels that are black in all training images.

python benchmarks/background.py RUN RUN2 …

A Fréchet distance does not show a background that is not black.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rdd_edge.data import load_images
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.distillation.run_folder import read_training_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--n", type=int, default=500)
    arguments = parser.parse_args()
    for run in arguments.runs:
        run_file = read_training_run(run)
        black = load_images(run_file.data, run_file.preset.image_size).images.max(axis=0) == 0  # (H, W, C)
        if not black.any():
            raise SystemExit(f"{run_file.data} has no pixel that is black in every image")
        images = sample_images(read_checkpoint(run), arguments.n, 1, 0)
        print(f"{run}: {run_file.preset.method}, mean {images[:, black].mean():.1f} of 255 at {black.sum()} pixels")


if __name__ == "__main__":
    main()
