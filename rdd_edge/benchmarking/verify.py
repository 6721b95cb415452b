"""`rdd-edge verify`: the saved bytes of a bundle, run against its parity vectors and its runtime's rules."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..bundle import MANIFEST, Bundle, read_bundle
from ..errors import ArtifactError, CorruptError, ThresholdError, UsageError
from ..metrics.psnr import psnr_per_image
from ..schema import Frozen
from ..targets import load_target
from ..targets.base import Runtime, Target
from .bench import spec_of
from .worker import Request, in_child

__all__ = ["VerifyReport", "verify_bundle"]

_PEAK = 2.0  # of images in [-1, 1]
_THREADS = 2
_LOUDEST = 5


class VerifyReport(Frozen):
    """What was found; a bundle that fails raises instead."""

    target: str
    precision: str
    samples: int = Field(ge=1)
    psnr_db: float | None  # median over images; None where nothing on this machine runs the artifact
    worst_psnr_db: float | None
    threshold_db: float  # what the median has to reach
    runtime: Runtime | None
    reason: str | None  # why psnr_db is None
    rules_checked: bool  # of a runtime that is not at hand; False: the target has none to check
    largest: dict[
        str, float
    ]  # the float16 tensors of largest magnitude, where the runtime tells; float16 ends at 65504


def verify_bundle(folder: Path) -> VerifyReport:
    """Check hashes, the rules of the target's runtime, and the artifact's images against the student's.

    Raises MissingError and CorruptError as `read_bundle` does, ArtifactError where the artifact breaks a rule, does not
    run or overflows, ThresholdError where its images are too far from the student's.
    """
    bundle = read_bundle(folder)
    target = load_target(bundle.manifest.target)
    checked = _check_rules(bundle, target)
    threshold = _threshold(bundle, target)
    z, label, x = bundle.parity_vectors()
    found = _run(bundle, z, label)
    common = {
        "target": target.name,
        "precision": bundle.manifest.precision,
        "samples": len(z),
        "threshold_db": threshold,
        "rules_checked": checked,
    }
    if found is None:
        reason = target.cannot_run(bundle.manifest.precision)
        return VerifyReport(**common, psnr_db=None, worst_psnr_db=None, runtime=None, reason=reason, largest={})
    images, runtime, largest = found
    psnr = psnr_per_image(images, x, _PEAK)
    median = float(np.median(psnr))
    if not median >= threshold:
        raise ThresholdError(
            f"{folder} is {median:.1f} dB from its student (median of {len(psnr)} images), "
            f"and {target.name} {bundle.manifest.precision} has to reach {threshold:g} dB: export it again"
        )
    loudest = dict(sorted(largest.items(), key=lambda item: -item[1])[:_LOUDEST])
    return VerifyReport(
        **common, psnr_db=median, worst_psnr_db=float(psnr.min()), runtime=runtime, reason=None, largest=loudest
    )  # fmt: skip


def _check_rules(bundle: Bundle, target: Target) -> bool:
    """Raise ArtifactError for a broken rule; whether the target has rules."""
    broken = target.broken_rules(bundle.artifact, bundle.manifest.precision)
    if broken:
        more = f", and {len(broken) - 1} more of the kind" if len(broken) > 1 else ""
        raise ArtifactError(f"{bundle.artifact} would not run as it should on the device: {broken[0]}{more}")
    return broken is not None


def _threshold(bundle: Bundle, target: Target) -> float:
    try:
        return target.precision(bundle.manifest.precision).parity_db
    except UsageError as error:
        raise CorruptError(f"{bundle.folder / MANIFEST} is wrong: {error}") from None


def _run(
    bundle: Bundle, z: NDArray[np.float32], label: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], Runtime, dict[str, float]] | None:
    """Images, runtime and magnitudes from a child process, or None where nothing here runs the artifact."""
    spec = spec_of(bundle)
    with tempfile.TemporaryDirectory(prefix="rdd-edge-") as name:
        work = Path(name)
        np.save(work / "z.npy", z, allow_pickle=False)
        if label is not None:
            np.save(work / "label.npy", label, allow_pickle=False)
        artifact = str(bundle.artifact.resolve())
        request = Request(job="run", target=bundle.manifest.target, artifact=artifact, spec=spec, threads=_THREADS)
        if in_child(request, work).status == "none":
            return None
        runtime = Runtime.model_validate_json((work / "runtime.json").read_bytes())
        told = work / "largest.json"
        largest = json.loads(told.read_text()) if told.is_file() else {}
        return np.load(work / "x.npy", allow_pickle=False), runtime, largest
