"""From a checkpoint to bundles: export once, then for each target and precision rewrite, quantize, lower and prove."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.export import ExportedProgram

from ..benchmarking.isolation import run_artifact
from ..benchmarking.verify import THREADS
from ..bundle import (
    MANIFEST,
    BudgetRecord,
    Bundle,
    Calibration,
    Manifest,
    Parity,
    Plan,
    Quantization,
    TensorSpec,
    read_bundle,
)
from ..console import reporter
from ..dependencies import silenced
from ..diffusion.checkpoint import Checkpoint, read_checkpoint
from ..errors import ExportError, UsageError
from ..files import new_folder, tree_sha256, write_model
from ..targets.base import Artifact, CalibrationSet, ExportSpec, Quantized, Target
from .budget import Budget
from .calibration import PARITY_SEED, calibration_set
from .harness import add_harness
from .parity import PARITY_SAMPLES, Vectors, make_vectors, measure, write_vectors
from .program import export_program
from .provenance import shared_provenance
from .rewrites import apply_rewrites
from .search import MIXED, Found, search_keep
from .selection import plan_bundles

__all__ = ["export_bundles"]


def export_bundles(
    checkpoint: Path,
    targets: tuple[str, ...],
    precision: str | None,
    out: Path,
    batch: int = 1,
    budget: Budget | None = None,
    backend: str | None = None,
) -> list[Bundle]:
    """Build out/<target>-<precision> for each target: a precision, all that its backend has, or its default.

    budget: what a mixed-precision artifact has to reach; without it no such is built.
    precision, backend: as `plan_bundles` has them.
    Raises UsageError for a target or precision that does not exist and DependencyError for a converter that is not
    installed, both before any work; UsageError for a model of several sampling steps; ExportError where a target cannot
    take the model; ArtifactError where the artifact does not run; ThresholdError where no mixture holds the budget.
    """
    wanted = plan_bundles(targets, precision, out, budget, backend)
    for target in {target.name: target for target, _ in wanted}.values():
        target.require()
    found = read_checkpoint(checkpoint)
    found.require_one_step()
    student = _Student(found, batch, budget)
    return [_build(student, target, name, out / f"{target.name}-{name}") for target, name in wanted]


@dataclass
class _Student:
    """The student and what several bundles share of it, each made when first wanted."""

    checkpoint: Checkpoint
    batch: int
    budget: Budget | None
    rewritten: dict[tuple[str, ...], ExportedProgram] = field(default_factory=dict)
    made: dict[tuple[int, int], Vectors] = field(default_factory=dict)

    @cached_property
    def unet(self) -> nn.Module:
        return self.checkpoint.load()

    def vectors(self, samples: int = PARITY_SAMPLES, seed: int = PARITY_SEED) -> Vectors:
        """Noise and the student's own images of it, made once for each number and seed."""
        if (samples, seed) not in self.made:
            about = self.checkpoint.image_shape, self.checkpoint.classes
            self.made[samples, seed] = make_vectors(self.unet, *about, samples, seed)
        return self.made[samples, seed]

    @cached_property
    def program(self) -> ExportedProgram:
        reporter().begin("export")
        with _converting():
            return export_program(self.unet, self.input_shape, self.checkpoint.classes)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, *self.checkpoint.image_shape)

    def rewrite(self, target: Target, precision: str) -> ExportedProgram:
        names = target.rewrites[precision]
        if names not in self.rewritten:
            program = self.program
            _begin(target, precision, "rewrite")
            with _converting():
                self.rewritten[names] = apply_rewrites(program, names)
        return self.rewritten[names]


@contextmanager
def _converting() -> Iterator[None]:
    """Around every call of a converter: quickly, and without its noise."""
    with silenced(), shared_provenance():
        yield


def _build(student: _Student, target: Target, precision: str, out: Path) -> Bundle:
    """One bundle, written beside and renamed once its parity is known and its hashes hold."""
    spec = ExportSpec(precision, student.input_shape, student.checkpoint.classes)
    program = student.rewrite(target, precision)
    with new_folder(out) as folder:
        lowered, quantization = _quantize(student, target, spec, program)
        _begin(target, precision, "lower")
        with _converting():
            artifact = target.lower(lowered, spec, folder)
        if broken := target.broken_rules(artifact.path, precision):
            raise ExportError(f"the {target.name} target cannot take this model: {'; '.join(broken[:3])}")
        _begin(target, precision, "parity")
        write_vectors(folder / "parity", student.vectors())
        parity = measure(target.name, artifact.path, spec, student.vectors())
        add_harness(target.name, folder)
        manifest = _manifest(student.checkpoint, target, spec, artifact, folder, quantization, parity)
        write_model(folder / MANIFEST, manifest)
        read_bundle(folder)  # before the rename: what takes the place of an older bundle is whole
    bundle = read_bundle(out)
    reporter().end()
    reporter().result(f"{out}: {_verdict(target, bundle, artifact)}")
    return bundle


def _begin(target: Target, precision: str, stage: str) -> None:
    reporter().begin(f"{target.name}-{precision} {stage}")


def _quantize(
    student: _Student, target: Target, spec: ExportSpec, program: ExportedProgram
) -> tuple[ExportedProgram | Quantized, Quantization | None]:
    if spec.precision not in target.quantized:
        return program, None
    calibration = calibration_set(student.checkpoint.image_shape, spec.classes)
    keep: tuple[str, ...] = ()
    held = None
    if spec.precision == MIXED:
        found, budget = _search(student, target, spec, program, calibration), student.budget
        assert budget is not None
        keep, held = (
            found.keep,
            BudgetRecord(kind=budget.kind, asked=budget.asked, reached=found.value, samples=budget.samples),
        )
    _begin(target, spec.precision, "quantize")
    with _converting():
        result = target.quantize(program, spec, calibration, keep)
    activations = result.int8_macs_fraction is not None
    record = Calibration(samples=len(calibration.z), seed=calibration.seed) if activations else None
    return result, Quantization(
        calibration=record, keep=result.keep, int8_macs_fraction=result.int8_macs_fraction, budget=held
    )


def _search(
    student: _Student, target: Target, spec: ExportSpec, program: ExportedProgram, calibration: CalibrationSet
) -> Found:
    """The layers to keep in higher precision, found on artifacts built in a folder of its own."""
    budget = student.budget
    assert budget is not None

    def tell(detail: str) -> None:
        _begin(target, spec.precision, f"search: {detail}")

    tell(f"the student's own {budget.samples} images")
    vectors = student.vectors(budget.samples, budget.seed)
    value_of_images = budget.against(vectors.x)
    tell("the cost of each layer")

    def value_of(keep: tuple[str, ...]) -> float:
        tell(f"{len(keep)} layers kept")
        with TemporaryDirectory(prefix="rdd-edge-") as name:
            with _converting():
                quantized = target.quantize(program, spec, calibration, keep)
                artifact = target.lower(quantized, spec, Path(name))
            x = run_artifact(target.name, artifact.path, spec, THREADS, vectors.z, vectors.label)
        if x is None:
            raise UsageError(
                f"mixed precision needs a runtime here to measure the budget: {target.cannot_run(spec.precision)}"
            )
        value = value_of_images(x)
        found_so_far = f"{budget.text(value)} with {len(keep)} layers kept"
        reporter().note(f"{target.name}-{spec.precision}: {found_so_far}")
        return value

    found = search_keep(program, calibration, budget, value_of)
    reporter().end()
    reporter().result(f"{target.name}-{spec.precision}: {found.explanation(budget)}")
    return found


def _manifest(
    checkpoint: Checkpoint,
    target: Target,
    spec: ExportSpec,
    artifact: Artifact,
    folder: Path,
    quantization: Quantization | None,
    parity: Parity,
) -> Manifest:
    label = None
    if spec.classes is not None:
        label = TensorSpec(name="label", shape=spec.input_shape[:1], dtype="int64", low=0, high=spec.classes - 1)
    return Manifest(
        target=target.name,
        precision=spec.precision,
        artifact=artifact.path.relative_to(folder).as_posix(),
        input=TensorSpec(name="z", shape=spec.input_shape, dtype="float32"),
        label=label,
        output=TensorSpec(name="x", shape=spec.input_shape, dtype="float32", low=-1, high=1),
        checkpoint_sha256=checkpoint.sha256,
        quantization=quantization,
        parity=parity,
        rewrites=target.rewrites[spec.precision],
        tool_versions=dict(sorted({**_tools(), **artifact.tool_versions}.items())),
        default_plan=Plan(),
        files=tree_sha256(folder),
    )


def _tools() -> dict[str, str]:
    packages = {name: version(name) for name in ("rdd-edge", "diffusers")}
    return {**packages, "torch": torch.__version__, "python": platform.python_version()}


def _verdict(target: Target, bundle: Bundle, artifact: Artifact) -> str:
    """For a person: parity against its threshold, the int8 share, what runs outside the backend, the size."""
    return ", ".join(_clauses(target, bundle, artifact))


def _clauses(target: Target, bundle: Bundle, artifact: Artifact) -> Iterator[str]:
    m = bundle.manifest
    least = target.parity_db[m.precision]
    if m.parity.psnr_db is None:
        yield f"parity not measured: {m.parity.reason}"
    else:
        short = "" if m.parity.psnr_db >= least else f", under the {least:g} dB of this precision"
        yield f"parity {m.parity.psnr_db:.1f} dB, worst {m.parity.worst_psnr_db:.1f} dB{short}"
    if m.quantization and m.quantization.int8_macs_fraction is not None:
        yield f"{m.quantization.int8_macs_fraction:.1%} of the multiplications in int8"
    if artifact.outside:
        yield "outside the backend: " + ", ".join(f"{count} {name}" for name, count in artifact.outside.items())
    yield f"{bundle.artifact_bytes / 1e6:.2f} MB"
