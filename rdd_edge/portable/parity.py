"""The artifact's images on this board, for the bundle's parity inputs, against the student's.

Only the standard library and NumPy, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError
from .psnr import median_and_worst
from .runner import Runner
from .timing import run_batches


def check_parity(
    runner: Runner, folder: Path, shape: tuple[int, ...], label: bool, least: float | None
) -> dict[str, Any]:
    """The parity in selftest.json.  folder: parity/ of the bundle.  shape: of the input, (N, C, H, W).

    Raises ArtifactError where the median PSNR is below `least`.
    """
    z, student = (np.fromfile(folder / name, "<f4").reshape(-1, *shape[1:]) for name in ("z.f32", "x.f32"))
    labels = np.fromfile(folder / "label.i64", "<i8") if label else None
    median, worst = median_and_worst(run_batches(runner, shape, z, labels), student)
    if least is not None and not median >= least:
        raise ArtifactError(
            f"on this machine, the artifact's images are {median:.1f} dB from the student's (median of {len(z)}), "
            f"and they have to reach {least:g} dB: its kernels compute something else"
        )
    return {
        "psnr_db": median,
        "worst_psnr_db": worst,
        "threshold_db": least,
        "samples": len(z),
    }
