"""`rdd-edge verify`: an artifact's images for the parity vectors against the student's, and its runtime's rules.

The artifact runs in its runtime on this machine, or on the kernels of another processor under emulation, which shows
what those kernels compute and says nothing about their speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..bundle import MANIFEST, Bundle, read_bundle
from ..errors import CorruptError, ThresholdError, UsageError
from ..portable.psnr import median_and_worst
from ..portable.timing import run_batches
from ..schema import Frozen
from ..targets import load_target
from ..targets.base import Runtime
from .bench import spec_of
from .isolation import ArtifactRun, execute

THREADS = 2
LARGEST_SHOWN = 5


class VerifyReport(Frozen):
    """What the check of a bundle found; a bundle that fails raises instead."""

    target: str
    precision: str
    processor: str | None  # that was emulated, e.g. arm64 cortex-a76; None: this machine's own
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
    z, label, x = bundle.parity_vectors()
    run = execute(bundle.manifest.target, bundle.artifact, spec_of(bundle), THREADS, z, label)
    return _report(bundle, x, run, None)


def verify_emulated(
    folder: Path, arch: str, cpus: Sequence[str] = (), samples: int | None = None
) -> Iterator[VerifyReport]:
    """The same on each CPU model of another architecture, by default on those that the target names.

    samples: how many of the parity vectors, from the first; None: all.
    Raises what `verify_bundle` does, UsageError where the target has no emulation of `arch` or the emulator no such CPU
    model, and DependencyError where a tool is not installed. Errors of the artifact name the CPU model.
    """
    bundle = read_bundle(folder)
    m, spec = bundle.manifest, spec_of(bundle)
    runners = load_target(m.target).emulated(bundle.artifact.resolve(), spec, arch, tuple(cpus))
    if runners is None:
        raise UsageError(f"{folder} is {m.target} {m.precision}, for which there is no emulation of {arch}")
    z, label, x = bundle.parity_vectors()
    z, label, x = z[:samples], None if label is None else label[:samples], x[:samples]
    for cpu, runner in runners.items():
        images = run_batches(runner, spec.input_shape, z, label)
        yield _report(bundle, x, ArtifactRun(images, runner.runtime, {}, rules_checked=False), f"{arch} {cpu}")


def _report(
    bundle: Bundle, student: NDArray[np.float32], run: ArtifactRun | None, processor: str | None
) -> VerifyReport:
    """The verdict on an artifact's images.  student: its images (N, C, H, W) of the same noise.

    Raises ThresholdError where they are too far apart and the bundle's export did not allow that.
    """
    m, target = bundle.manifest, load_target(bundle.manifest.target)
    try:
        precision = target.precision(m.precision)
    except UsageError as error:
        raise CorruptError(f"{bundle.folder / MANIFEST} is wrong: {error}") from None
    median, worst = (None, None) if run is None else median_and_worst(run.x, student)
    if median is not None and not median >= precision.parity_db and not m.parity.low_allowed:
        place = f"on {processor}, " if processor else ""
        raise ThresholdError(
            f"{place}{bundle.folder} is {median:.1f} dB from its student (median of {len(student)} images), "
            f"and {m.target} {m.precision} has to reach {precision.parity_db:g} dB: export it again"
        )
    largest = sorted(run.largest.items(), key=lambda item: -item[1]) if run else []
    return VerifyReport(
        target=m.target,
        precision=m.precision,
        processor=processor,
        samples=len(student),
        psnr_db=median,
        worst_psnr_db=worst,
        threshold_db=precision.parity_db,
        low_allowed=m.parity.low_allowed,
        runtime=run.runtime if run else None,
        reason=target.cannot_run(m.precision) if run is None else None if processor else precision.unlike_device,
        rules_checked=run is not None and run.rules_checked,
        largest=dict(largest[:LARGEST_SHOWN]),
    )
