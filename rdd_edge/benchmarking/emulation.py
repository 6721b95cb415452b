"""`rdd-edge verify --arch`: a bundle's artifact on the kernels of another processor, under emulation.

It shows what those kernels compute. It says nothing about their speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from ..bundle import read_bundle
from ..errors import ThresholdError, UsageError
from ..metrics.psnr import psnr_per_image
from ..portable.timing import run_batches
from ..schema import Frozen
from ..targets import load_target
from ..targets.base import Runtime
from .bench import spec_of
from .verify import PEAK


class EmulationReport(Frozen):
    """What the check on one CPU model found; an artifact that fails raises instead."""

    target: str
    precision: str
    arch: str
    cpu: str
    samples: int = Field(ge=1)
    psnr_db: float  # median over images
    worst_psnr_db: float
    threshold_db: float  # what the median has to reach
    runtime: Runtime


def verify_emulated(
    folder: Path, arch: str, cpus: Sequence[str] = (), samples: int | None = None
) -> Iterator[EmulationReport]:
    """Compare an artifact's images with the student's on each CPU model, by default on those that its target names.

    samples: how many of the parity vectors, from the first; None: all.
    Raises MissingError and CorruptError as `read_bundle` does, UsageError where the target has no emulation of `arch`
    or the emulator no such CPU model, DependencyError where a tool is not installed, ArtifactError where the artifact
    does not run, and ThresholdError where its images are too far from the student's; the last two name the CPU model.
    """
    bundle = read_bundle(folder)
    m, target = bundle.manifest, load_target(bundle.manifest.target)
    threshold = target.precision(m.precision).parity_db
    spec = spec_of(bundle)
    runners = target.emulated(bundle.artifact.resolve(), spec, arch, tuple(cpus))
    if runners is None:
        raise UsageError(f"{folder} is {target.name} {m.precision}, for which there is no emulation of {arch}")
    z, label, x = bundle.parity_vectors()
    z, label, x = z[:samples], None if label is None else label[:samples], x[:samples]
    batch = -(-len(z) // spec.input_shape[0]) * spec.input_shape[0]  # all at once, in whole batches of the artifact
    for cpu, runner in runners.items():
        psnr = psnr_per_image(run_batches(runner, spec.input_shape, z, label, batch=batch), x, PEAK)
        median = float(np.median(psnr))
        if not median >= threshold:
            raise ThresholdError(
                f"on {arch} {cpu}, {folder} is {median:.1f} dB from its student (median of {len(psnr)} images), and "
                f"{target.name} {m.precision} has to reach {threshold:g} dB"
            )
        yield EmulationReport(
            target=target.name, precision=m.precision, arch=arch, cpu=cpu, samples=len(z), psnr_db=median,
            worst_psnr_db=float(psnr.min()), threshold_db=threshold, runtime=runner.runtime,
        )  # fmt: skip
