"""The artifact's images on this board, for the bundle's parity inputs, against the student's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdd_edge.errors import ArtifactError
from rdd_edge.portable.runner import Runner
from rdd_edge.portable.timing import run_batches

PEAK = 2.0  # of images in [-1, 1]
IDENTICAL_DB = 200.0  # in place of infinity, as in rdd_edge.metrics.psnr


def psnr_per_image(x: NDArray[np.float32], student: NDArray[np.float32]) -> NDArray[np.float64]:
    """PSNR in dB of each image (N, C, H, W), peak 2.0."""
    error = ((x.astype(np.float64) - student) ** 2).mean(axis=(1, 2, 3))  # (N,)
    with np.errstate(divide="ignore"):
        psnr: NDArray[np.float64] = np.minimum(10 * np.log10(PEAK**2 / error), IDENTICAL_DB)
    return psnr


def check_parity(
    runner: Runner, folder: Path, shape: tuple[int, ...], label: bool, least: float | None
) -> dict[str, Any]:
    """The parity in selftest.json.  folder: parity/ of the bundle.  shape: of the input, (N, C, H, W).

    Raises ArtifactError where the median PSNR is below `least`.
    """
    z, student = (np.fromfile(folder / name, "<f4").reshape(-1, *shape[1:]) for name in ("z.f32", "x.f32"))
    labels = np.fromfile(folder / "label.i64", "<i8") if label else None
    psnr = psnr_per_image(run_batches(runner, shape, z, labels), student)
    median = float(np.median(psnr))
    if least is not None and not median >= least:
        raise ArtifactError(
            f"on this machine, the artifact's images are {median:.1f} dB from the student's (median of {len(psnr)}), "
            f"and they have to reach {least:g} dB: its kernels compute something else"
        )
    return {
        "psnr_db": median,
        "worst_psnr_db": float(psnr.min()),
        "threshold_db": least,
        "samples": len(psnr),
    }
