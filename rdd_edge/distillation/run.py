"""A training run: extractor and judge, teacher, halvings down to one step, refining; each a folder, each resumable.

RUN/{extractor,judge,teacher,student-…,student-8,student-4,student-2,student-1,refined}/   finished stages
RUN/run.json       the run's settings, with versions and the hash of its data
RUN/logs/*.jsonl   one line per logged step
RUN/.state/        the unfinished stage
"""

from __future__ import annotations

import math
import platform
import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from ..data import ImageSet, load_images
from ..diffusion.checkpoint import REFINED, STUDENT, Checkpoint, read_checkpoint
from ..diffusion.external_teacher import foreign_denoiser, read_foreign
from ..diffusion.network import build_unet, denoiser
from ..diffusion.schedule import MOST_WEIGHT
from ..distributed import current, joined
from ..errors import MissingError, UsageError
from ..files import new_folder, read_model, remove_leftovers, sha256_of, write_model
from ..metrics.classifiers import ExtractorConfig, load_feature_network
from ..schema import Frozen, Sha256, Text
from .batches import ImageBatches
from .checks import check, check_batches, student_times, uses_lpips
from .compute_context import ComputeContext, generator
from .config import Losses, Network, Preset, Refining, Sfddm
from .losses.critics import new_critics
from .losses.lpips import load_lpips
from .losses.objective import Objective
from .stages.base import Stage
from .stages.classifier import ClassifierStage
from .stages.halving import HalvingStage
from .stages.matching import MatchStage
from .stages.refining import RefiningStage
from .stages.sfddm import SfddmStage
from .stages.teacher import TeacherStage
from .trainer import SAVE_SECONDS, TrainerOptions, run_stage

RUN_FILE = "run.json"


class RunFile(Frozen):
    """run.json."""

    schema_version: Literal[1] = 1
    preset: Preset  # with all changes applied
    data: str
    data_sha256: Sha256
    data_count: int = Field(ge=1)
    classes: tuple[Text, ...] | None = None  # names by label
    started_from: str | None  # the run whose extractor, judge, teacher and base student were copied
    teacher_sha256: Sha256 | None = None  # weights of the foreign teacher
    student_sha256: Sha256 | None = None  # weights of the one-step student that was given
    lpips_sha256: Sha256 | None = None  # file of the LPIPS backbone
    compacted: tuple[str, ...] = ()  # the point of training at each `rdd-edge compact`
    versions: dict[str, str]


def read_training_run(run: Path) -> RunFile:
    """run.json of a run. Raises MissingError or CorruptError."""
    return read_model(run / RUN_FILE, RunFile)


def stage_names(preset: Preset) -> tuple[str, ...]:
    """Folders of the run's stages in order."""
    judge, refined = ("judge",) if preset.judge else (), (REFINED,) if preset.refines else ()
    if preset.student_folder is not None:
        return ("extractor", *judge, *refined)
    if preset.sfddm:  # trains without an extractor; refining needs one, and evaluation if there is no judge
        classifiers = judge if judge and not refined else ("extractor", *judge)
        return (*classifiers, "teacher", f"student-{preset.sfddm.steps}", *refined)
    folds = int(math.log2(preset.first_steps))
    smaller = (f"student-{preset.first_steps}",) if preset.student else ()
    halvings = (f"student-{2**i}" for i in reversed(range(folds)))
    return ("extractor", *judge, "teacher", *smaller, *halvings, *refined)


def base_stage(preset: Preset) -> str:
    """The stage that runs with other losses start from."""
    if preset.student_folder is not None:
        return "extractor"
    below = preset.base_steps < preset.first_steps or preset.student is not None
    return f"student-{preset.base_steps}" if below and preset.sfddm is None else "teacher"


def superseded_stages(preset: Preset, run: Path) -> tuple[str, ...]:
    """The stages between the teacher and a finished base student, which are not read again."""
    names, base = stage_names(preset), base_stage(preset)
    if preset.student_folder is not None:
        return ()
    return names[names.index("teacher") + 1 : names.index(base)] if (run / base).is_dir() else ()


def distill(
    preset: Preset,
    out: Path,
    *,
    data: ImageSet | None = None,
    start_from: Path | None = None,
    deadline: float = math.inf,
    device: str | None = None,
    save_seconds: float = SAVE_SECONDS,
    shard_mb: int = 1000,
    tensorboard: bool = False,
    until: str | None = None,
) -> None:
    """Train every stage that `out` does not hold yet, up to its one-step student or the stage `until`.

    start_from: a run whose extractor, judge, teacher and student at preset.base_steps are copied instead of trained.
    deadline: on time.monotonic's clock; raises OutOfTime past it. Raises UsageError if `out` has other settings.
    """
    options = TrainerOptions(deadline, save_seconds, shard_mb * 1_000_000, tensorboard)
    with joined(device) as torch_device:
        check_batches(preset)
        if current().is_main:
            data = data or load_images(preset.data, preset.image_size)  # rank 0 fills the cache, the others read it
            given = check(preset, data)
            _prepare_folder(out, _new_run_file(preset, data, start_from, given, torch_device), start_from)
            for folder in (out, *out.glob(".state/*")):
                remove_leftovers(folder)
        current().barrier()
        data = data or load_images(preset.data, preset.image_size)
        _Training(preset, out, data, ComputeContext(torch_device, preset.compute)).run(options, until)


def _new_run_file(
    preset: Preset, data: ImageSet, start_from: Path | None, given: Checkpoint | None, device: torch.device
) -> RunFile:
    backbone = preset.lpips.backbone if uses_lpips(preset) else None
    return RunFile(
        preset=preset,
        data=preset.data,
        data_sha256=data.sha256,
        data_count=len(data.images),
        classes=data.class_names,
        started_from=None if start_from is None else str(start_from),
        teacher_sha256=given.sha256 if given and preset.teacher_folder else None,
        student_sha256=given.sha256 if given and preset.student_folder else None,
        lpips_sha256=sha256_of(Path(backbone)) if backbone else None,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "rdd-edge")},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
    )


def _prepare_folder(out: Path, new: RunFile, start_from: Path | None) -> None:
    """Write run.json and copy the stages of `start_from`; or check that `out` is a run with the same settings."""
    if (out / RUN_FILE).exists():
        existing = read_training_run(out)
        # The path of the data may have changed, after a move to another machine; its hash may not.
        moved = new.preset.model_copy(update={"data": existing.preset.data})
        new = new.model_copy(update={"preset": moved})
        for field in ("preset", "data_sha256", "started_from", "teacher_sha256", "student_sha256", "lpips_sha256"):
            if getattr(existing, field) != getattr(new, field):
                raise UsageError(f"{out} was started with a different {field}: give the same settings or another --out")
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is neither empty nor a training run: choose another --out")
    if start_from is not None:
        _copy_base(start_from, out, new)
        new = new.model_copy(update={"compacted": read_training_run(start_from).compacted})
    write_model(out / RUN_FILE, new)


def _copy_base(source: Path, out: Path, new: RunFile) -> None:
    """Copy the stages up to the base student from a run that trained them on the same data with the same settings."""
    base_run = read_training_run(source)
    shared = ("network", "extractor", "judge", "conditional", "first_steps", "base_steps", "image_size")
    for field in (*shared, "teacher_folder"):
        if getattr(base_run.preset, field) != getattr(new.preset, field):
            raise UsageError(f"cannot start from {source}: its {field} differs from this run's")
    if base_run.data_sha256 != new.data_sha256:
        raise UsageError(f"cannot start from {source}: it was trained on other data")
    names = stage_names(new.preset)
    base = base_stage(new.preset) if base_run.preset.student == new.preset.student else "teacher"
    for name in names[: names.index(base) + 1]:
        if name in ("extractor", "judge", "teacher", base):
            if not (source / name).is_dir():
                raise MissingError(f"{source} has no {name} yet: finish it with rdd-edge distill")
            with new_folder(out / name) as folder:
                shutil.copytree(source / name, folder, dirs_exist_ok=True)


class _Training:
    """The stages of one run, each built from the finished ones in the run's folder."""

    def __init__(self, preset: Preset, out: Path, data: ImageSet, context: ComputeContext) -> None:
        self.preset, self.out, self.context = preset, out, context
        self.batches = ImageBatches(data, context)
        self.common = (self.batches, preset.seed, preset.conditional)  # arguments of every stage that trains a U-Net
        self.image_shape = data.image_shape
        self.classes = None if data.classes is None else len(data.classes)

    def run(self, options: TrainerOptions, until: str | None) -> None:
        superseded = superseded_stages(self.preset, self.out)
        for name in stage_names(self.preset):
            if not ((self.out / name).is_dir() or name in superseded):
                run_stage(self._stage(name), self.out, options, self.context.device)
            current().barrier()  # the next stage reads what rank 0 has written
            if name == until:
                return
        if current().is_main:
            shutil.rmtree(self.out / ".state", ignore_errors=True)

    def _stage(self, name: str) -> Stage:
        p = self.preset
        if name in ("extractor", "judge"):
            shape = getattr(p, name).model_dump()
            config = ExtractorConfig(**shape, image_shape=self.image_shape, classes=self.classes or 0)
            return ClassifierStage(name, config, getattr(p, f"{name}_training"), self.batches, p.seed)
        if name == "teacher" and p.teacher_folder is not None:
            return self._conversion(Path(p.teacher_folder))
        if name == "teacher":
            return TeacherStage(
                self._new_unet(p.network, "teacher/weights"), p.teacher, p.most_weight or MOST_WEIGHT, *self.common
            )
        if name == REFINED and p.refining:
            return self._refining(p.refining)
        if p.sfddm:
            return self._single_fold(p.sfddm)
        steps = int(name.removeprefix("student-"))
        return self._smaller(p.student) if p.student and steps == p.first_steps else self._halving(steps)

    def _conversion(self, folder: Path) -> MatchStage:
        """A foreign teacher's own network, from its own weights, taught to predict x on our schedule."""
        p, foreign = self.preset, read_foreign(folder)
        unet = foreign.checkpoint.load().to(self.context.device).requires_grad_(False)
        return MatchStage(
            "teacher", partial(foreign_denoiser, unet, foreign.schedule), foreign.checkpoint.load(),
            p.conversion or p.pd, *self.common, grid=None, role="teacher", method="conversion",
        )  # fmt: skip

    def _smaller(self, network: Network) -> MatchStage:
        """A student of another shape, taught at the teacher's number of sampling steps."""
        p = self.preset
        teacher = read_checkpoint(self.out / "teacher").load().to(self.context.device).requires_grad_(False)
        return MatchStage(
            f"student-{p.first_steps}", partial(denoiser, teacher), self._new_unet(network, "student/weights"),
            p.student_training or p.pd, *self.common, grid=p.first_steps, role="student", method="match",
        )  # fmt: skip

    def _single_fold(self, sfddm: Sfddm) -> SfddmStage:
        p, teacher = self.preset, read_checkpoint(self.out / "teacher")
        if p.student is not None:
            student = self._new_unet(p.student, "student/weights")
        elif sfddm.start == "random":
            arguments = {key: value for key, value in teacher.config.items() if not key.startswith("_")}
            student = build_unet(arguments, self._seed("student/weights"))
        else:
            student = teacher.load()
        times = student_times(p, sfddm)
        return SfddmStage(teacher.load(), student, times, sfddm.hidden, p.distillation, *self.common)

    def _halving(self, steps: int) -> HalvingStage:
        """The student of `steps` steps, starting from the weights of its teacher of twice as many."""
        p = self.preset
        teacher = self.out / ("teacher" if 2 * steps == p.first_steps and p.student is None else f"student-{2 * steps}")
        method, losses = ("pd", Losses(pd=1.0)) if steps >= p.base_steps else (p.method, p.losses)
        return HalvingStage(
            read_checkpoint(teacher).load(), read_checkpoint(teacher).load(), steps, method,
            self._objective(losses, steps), p.halving(steps), *self.common,
        )  # fmt: skip

    def _refining(self, refining: Refining) -> RefiningStage:
        """The one-step student, of this run or given, against critics on the extractor that the losses may have used.

        Never on the judge, so that evaluation stays independent.
        """
        p = self.preset
        student = read_checkpoint(self.out / STUDENT if p.student_folder is None else Path(p.student_folder))
        extractor = load_feature_network(self.out / "extractor")[1].to(self.context.device)
        classes = self.classes if p.conditional else None
        critics = new_critics(extractor, self.image_shape, refining.width, classes, self._seed("refined/critics"))
        return RefiningStage(student.load(), student.card, critics, refining, *self.common)

    def _objective(self, losses: Losses, steps: int) -> Objective:
        p, extractor = self.preset, None
        if losses.uses_features:
            extractor = self.context.prepare(load_feature_network(self.out / "extractor")[1])
        perceptual = self.context.prepare(load_lpips(p.lpips, self.image_shape[0])) if losses.lpips else None
        objective = Objective(losses, p.taus, p.memory, steps, extractor, self.context, perceptual)
        if extractor is not None:
            channels = int(extractor(torch.zeros(1, *self.image_shape, device=self.context.device)).shape[1])
            objective.prepare(channels, self._seed(f"head-{steps}"))
        return objective

    def _new_unet(self, network: Network, key: str) -> nn.Module:
        arguments = network.unet(self.image_shape, self.classes if self.preset.conditional else None)
        return build_unet(arguments, self._seed(key))

    def _seed(self, key: str) -> int:
        """The seed of initial weights."""
        return int(generator(self.preset.seed, key, 0).initial_seed())
