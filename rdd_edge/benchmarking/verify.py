"""`rdd-edge verify`: an artifact's images for the parity vectors against the student's, and its runtime's rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from ..bundle import MANIFEST, read_bundle
from ..errors import ArtifactError, CorruptError, ThresholdError, UsageError
from ..metrics.psnr import psnr_per_image
from ..schema import Frozen
from ..targets import load_target
from ..targets.base import Runtime
from .bench import spec_of
from .isolation import execute

PEAK = 2.0  # of images in [-1, 1]
THREADS = 2
LARGEST_SHOWN = 5


class VerifyReport(Frozen):
    """What the check of a bundle found; a bundle that fails raises instead."""

    target: str
    precision: str
    samples: int = Field(ge=1)
    psnr_db: float | None  # median over images; None where nothing on this machine runs the artifact
    worst_psnr_db: float | None
    threshold_db: float  # what the median has to reach
    low_allowed: bool  # unless the export was told to keep it
    runtime: Runtime | None
    reason: str | None  # why psnr_db is None, or not what a device gives
    rules_checked: bool  # the target's rules for a runtime that is not on this machine; False: it has none
    largest: dict[str, float]  # largest magnitude of the float16 tensors that come closest to its limit of 65504


def verify_bundle(folder: Path) -> VerifyReport:
    """Check a bundle's hashes, the rules of its target's runtime, and its artifact's images against the student's.

    Raises MissingError and CorruptError as `read_bundle` does, ArtifactError where the artifact breaks a rule, does not
    run or overflows, ThresholdError where its images are too far from the student's.
    """
    bundle = read_bundle(folder)
    m, target = bundle.manifest, load_target(bundle.manifest.target)
    broken = target.broken_rules(bundle.artifact, m.precision)
    if broken:
        more = f", and {len(broken) - 1} more like it" if len(broken) > 1 else ""
        raise ArtifactError(f"{bundle.artifact} would not run as it should on the device: {broken[0]}{more}")
    try:
        precision = target.precision(m.precision)
    except UsageError as error:
        raise CorruptError(f"{folder / MANIFEST} is wrong: {error}") from None
    z, label, x = bundle.parity_vectors()
    run = execute(m.target, bundle.artifact, spec_of(bundle), THREADS, z, label)
    psnr = None if run is None else psnr_per_image(run.x, x, PEAK)
    median = None if psnr is None else float(np.median(psnr))
    if median is not None and not median >= precision.parity_db and not m.parity.low_allowed:
        raise ThresholdError(
            f"{folder} is {median:.1f} dB from its student (median of {len(z)} images), "
            f"and {target.name} {m.precision} has to reach {precision.parity_db:g} dB: export it again"
        )
    largest = sorted(run.largest.items(), key=lambda item: -item[1]) if run else []
    return VerifyReport(
        target=target.name,
        precision=m.precision,
        samples=len(z),
        psnr_db=median,
        worst_psnr_db=None if psnr is None else float(psnr.min()),
        threshold_db=precision.parity_db,
        low_allowed=m.parity.low_allowed,
        runtime=run.runtime if run else None,
        reason=precision.unlike_device if run else target.cannot_run(m.precision),
        rules_checked=broken is not None,
        largest=dict(largest[:LARGEST_SHOWN]),
    )
