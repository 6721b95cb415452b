"""From a checkpoint to bundles: export once, then rewrite, quantize, lower and verify each target and precision."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.export import ExportedProgram

from ..benchmarking.isolation import BrokenRules, run_artifact
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
from ..diffusion.checkpoint import Checkpoint, read_checkpoint
from ..diffusion.foreign_student import one_step_student
from ..errors import ExportError, ThresholdError, UsageError
from ..files import new_folder, tree_sha256, write_bytes, write_model
from ..targets.base import Artifact, CalibrationSet, ExportSpec, Precision, Quantized, Target
from .budget import Budget
from .bundle_readme import README, bundle_readme
from .harness import add_contract, add_harness
from .parity import (
    PARITY_SAMPLES,
    PARITY_SEED,
    Vectors,
    calibration_set,
    make_vectors,
    measure,
    of_device,
    write_vectors,
)
from .program import converting, export_program
from .rewrites import apply_rewrites
from .search import MIXED, search_keep
from .selection import plan_bundles


def export_bundles(
    checkpoint: Path,
    targets: tuple[str, ...],
    precision: str | Sequence[str] | None,
    out: Path,
    batch: int = 1,
    budget: Budget | None = None,
    backend: str | None = None,
    allow_low_parity: bool = False,
    prediction: str | None = None,
    timestep: int | None = None,
) -> list[Bundle]:
    """Build out/<target>-<precision> for each target: the precisions given, all of its backend, or its default.

    budget: required for mixed precision.  precision, backend: as in `plan_bundles`.
    prediction, timestep: of a foreign one-step student, as in `one_step_student`.
    Raises UsageError for an unknown target or precision and DependencyError for a converter that is not installed, both
    before any work; UsageError for a model of several sampling steps; ExportError where a target cannot take the model;
    ArtifactError where the artifact does not run; ThresholdError where no choice of layers meets the budget, or where
    an artifact's images are further from the student's than its precision allows, unless `allow_low_parity`.
    """
    plan = plan_bundles(targets, precision, out, budget, backend)
    for target in {target.name: target for target, _ in plan}.values():
        target.require()
    found = one_step_student(read_checkpoint(checkpoint), prediction, timestep)
    student = _Student(found, batch, budget, allow_low_parity)
    return [
        _Build(student, target, target.precision(name)).bundle(out / f"{target.name}-{name}") for target, name in plan
    ]


@dataclass
class _Student:
    """The student and what its bundles share, each part made on first use."""

    checkpoint: Checkpoint
    batch: int
    budget: Budget | None
    allow_low_parity: bool
    rewritten: dict[tuple[str, ...], ExportedProgram] = field(default_factory=dict)
    made: dict[tuple[int, int], Vectors] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, *self.checkpoint.image_shape)

    @cached_property
    def unet(self) -> nn.Module:
        return self.checkpoint.load()

    @cached_property
    def program(self) -> ExportedProgram:
        reporter().begin("export")
        with converting():
            return export_program(self.unet, self.input_shape, self.checkpoint.classes)

    def vectors(self, samples: int = PARITY_SAMPLES, seed: int = PARITY_SEED) -> Vectors:
        """Noise and the student's images of it."""
        if (samples, seed) not in self.made:
            shape, classes = self.checkpoint.image_shape, self.checkpoint.classes
            self.made[samples, seed] = make_vectors(self.unet, shape, classes, samples, seed)
        return self.made[samples, seed]


@dataclass
class _Build:
    """One bundle in the making."""

    student: _Student
    target: Target
    precision: Precision

    @property
    def name(self) -> str:
        return f"{self.target.name}-{self.precision.name}"

    @property
    def spec(self) -> ExportSpec:
        return ExportSpec(self.precision.name, self.student.input_shape, self.student.checkpoint.classes)

    def bundle(self, out: Path) -> Bundle:
        """Write a temporary folder, and rename it to `out` once its parity is measured and its hashes are right."""
        program = self._rewritten()
        with new_folder(out) as folder:
            lowered, quantization = self._quantized(program)
            self._begin("lower")
            with converting():
                artifact = self.target.lower(lowered, self.spec, folder)
            self._begin("parity")
            write_vectors(folder / "parity", self.student.vectors())
            parity = self._parity(artifact.path, out)
            add_contract(folder)
            add_harness(self.target.name, folder)
            manifest = self._manifest(artifact, folder, quantization, parity)
            page = bundle_readme(manifest, self.student.vectors(), self.target.snippets(manifest))
            write_bytes(folder / README, page.encode())
            write_model(folder / MANIFEST, manifest.model_copy(update={"files": tree_sha256(folder)}))
            read_bundle(folder)  # before the rename, which replaces an older bundle
        bundle = read_bundle(out)
        reporter().end()
        reporter().result(f"{out}: {', '.join(_verdict(self.precision, bundle, artifact))}")
        return bundle

    def _parity(self, artifact: Path, out: Path) -> Parity:
        """The artifact's parity.

        Raises ExportError where the artifact breaks a rule of its runtime, and ThresholdError where its parity is too
        low and that is not allowed.
        """
        try:
            parity = measure(self.target, artifact, self.spec, self.student.vectors())
        except BrokenRules as error:
            clauses = "; ".join(error.clauses[:3])
            raise ExportError(f"the {self.target.name} target does not support this model: {clauses}") from None
        if parity.psnr_db is None or parity.psnr_db >= self.precision.parity_db:
            return of_device(parity, self.precision)
        if not self.student.allow_low_parity:
            raise ThresholdError(
                f"{out} was not created: its images are {parity.psnr_db:.1f} dB from the student's, and "
                f"{self.target.name} {self.precision.name} must reach {self.precision.parity_db:g} dB; choose another "
                "precision, or keep it with --allow-low-parity"
            )
        return of_device(parity, self.precision).model_copy(update={"low_allowed": True})

    def _begin(self, stage: str) -> None:
        reporter().begin(f"{self.name} {stage}")

    def _rewritten(self) -> ExportedProgram:
        names, cache = self.precision.rewrites, self.student.rewritten
        if names not in cache:
            program = self.student.program
            self._begin("rewrite")
            with converting():
                cache[names] = apply_rewrites(program, names)
        return cache[names]

    def _quantized(self, program: ExportedProgram) -> tuple[ExportedProgram | Quantized, Quantization | None]:
        if not self.precision.quantized:
            return program, None
        calibration = calibration_set(self.student.checkpoint.image_shape, self.spec.classes)
        keep, record = self._search(program, calibration) if self.precision.name == MIXED else ((), None)
        self._begin("quantize")
        with converting():
            quantized = self.target.quantize(program, self.spec, calibration, keep)
        fraction = quantized.int8_macs_fraction  # None where only weights are quantized, without calibration
        return quantized, Quantization(
            calibration=None if fraction is None else Calibration(samples=len(calibration.z), seed=calibration.seed),
            keep=quantized.keep,
            int8_macs_fraction=fraction,
            budget=record,
        )

    def _search(
        self, program: ExportedProgram, calibration: CalibrationSet
    ) -> tuple[tuple[str, ...], BudgetRecord | None]:
        """The layers to keep in higher precision, found by building and running artifacts in temporary folders."""
        budget = self.student.budget
        assert budget is not None
        self._begin(f"search: {budget.samples} images of the student")
        vectors = self.student.vectors(budget.samples, budget.seed)
        value_of_images = budget.against(vectors.x)
        self._begin("search: cost of each layer")

        def value_of(keep: tuple[str, ...]) -> float:
            self._begin(f"search: {len(keep)} layers kept")
            with TemporaryDirectory(prefix="rdd-edge-") as name:
                with converting():
                    quantized = self.target.quantize(program, self.spec, calibration, keep)
                    artifact = self.target.lower(quantized, self.spec, Path(name))
                x = run_artifact(self.target.name, artifact.path, self.spec, THREADS, vectors.z, vectors.label)
            if x is None:
                reason = self.target.cannot_run(self.precision.name)
                raise UsageError(f"mixed precision needs a runtime on this machine to measure the budget: {reason}")
            value = value_of_images(x)
            reporter().note(f"{self.name}: {budget.text(value)} with {len(keep)} layers kept")
            return value

        result = search_keep(program, calibration, budget, value_of)
        reporter().end()
        reporter().result(f"{self.name}: {result.explanation(budget)}")
        return result.keep, BudgetRecord(
            kind=budget.kind, required=budget.required, reached=result.value, samples=budget.samples
        )

    def _manifest(
        self, artifact: Artifact, folder: Path, quantization: Quantization | None, parity: Parity
    ) -> Manifest:
        spec, label = self.spec, None
        if spec.classes is not None:
            label = TensorSpec(
                name="label", shape=spec.input_shape[:1], dtype=self.target.label_dtype, low=0, high=spec.classes - 1
            )
        tools = {name: version(name) for name in ("rdd-edge", "diffusers")}
        tools |= {"torch": torch.__version__, "python": platform.python_version(), **artifact.tool_versions}
        return Manifest(
            target=self.target.name,
            precision=spec.precision,
            artifact=artifact.path.relative_to(folder).as_posix(),
            input=TensorSpec(name="z", shape=spec.input_shape, dtype="float32"),
            label=label,
            output=TensorSpec(name="x", shape=spec.input_shape, dtype="float32", low=-1, high=1),
            schedule="cosine" if self.student.checkpoint.conversion is None else "own",
            class_names=self.student.checkpoint.class_names,
            conversion=self.student.checkpoint.conversion,
            checkpoint_sha256=self.student.checkpoint.sha256,
            quantization=quantization,
            parity=parity,
            rewrites=self.precision.rewrites,
            tool_versions=dict(sorted(tools.items())),
            needs=artifact.needs,
            default_plan=Plan(),
            files=tree_sha256(folder),
        )


def _verdict(precision: Precision, bundle: Bundle, artifact: Artifact) -> Iterator[str]:
    """Parity and its threshold, the fraction in 8 bits, the operators outside the backend, and the size."""
    parity, quantization = bundle.manifest.parity, bundle.manifest.quantization
    if parity.psnr_db is None:
        yield f"parity not measured: {parity.reason}"
    else:
        low = "" if parity.psnr_db >= precision.parity_db else f", below the required {precision.parity_db:g} dB"
        yield f"parity {parity.psnr_db:.1f} dB, worst {parity.worst_psnr_db:.1f} dB{low}"
    if quantization and quantization.int8_macs_fraction is not None:
        yield f"{quantization.int8_macs_fraction:.1%} of the multiplications in 8 bits"
    if artifact.outside:
        yield "outside the backend: " + ", ".join(f"{count} {name}" for name, count in artifact.outside.items())
    yield f"{bundle.artifact_bytes / 1e6:.2f} MB"
