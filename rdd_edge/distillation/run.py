"""A whole training run: extractor and judge, teacher, halvings down to one step, each a folder and each resumable.

RUN/{extractor,judge,teacher,student-…,student-8,student-4,student-2,student-1}/   finished stages
RUN/run.json       what the run was told, with versions and the data's hash
RUN/logs/*.jsonl   one line a logged step
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
from ..diffusion.checkpoint import read_checkpoint
from ..diffusion.external_teacher import Foreign, foreign_denoiser, read_foreign
from ..diffusion.network import build_unet, denoiser
from ..distributed import current, joined
from ..errors import MissingError, UsageError
from ..files import new_folder, read_model, remove_leftovers, sha256_of, write_model
from ..metrics.classifiers import ExtractorConfig, load_feature_network
from ..schema import Frozen, Sha256
from .batches import Batches
from .checks import check, check_batches, student_times, uses_lpips
from .compute_context import ComputeContext
from .config import Extractor, Losses, Network, Preset, Sfddm
from .losses.lpips import load_lpips
from .losses.objective import Objective
from .rng import generator
from .stages.base import Stage
from .stages.classifier import ClassifierStage
from .stages.halving import HalvingStage
from .stages.matching import MatchStage
from .stages.sfddm import SfddmStage
from .stages.teacher import TeacherStage
from .trainer import SAVE_SECONDS, Keeping, run_stage

__all__ = ["RUN_FILE", "RunFile", "base_stage", "distill", "read_training_run", "stage_names"]

RUN_FILE = "run.json"


class RunFile(Frozen):
    """run.json."""

    schema_version: Literal[1] = 1
    preset: Preset  # resolved: the values that were used
    data: str
    data_sha256: Sha256
    data_count: int = Field(ge=1)
    started_from: str | None  # the run whose extractor, judge, teacher and base student were taken
    teacher_sha256: Sha256 | None = None  # weights of the foreign teacher
    lpips_sha256: Sha256 | None = None  # the backbone's file
    compacted: tuple[str, ...] = ()  # where it stood each time `rdd-edge compact` rounded what it holds
    versions: dict[str, str]


def read_training_run(run: Path) -> RunFile:
    """run.json of a run. Raises MissingError or CorruptError."""
    return read_model(run / RUN_FILE, RunFile)


def stage_names(preset: Preset) -> tuple[str, ...]:
    """Folders of the run's stages in order."""
    judge = ("judge",) if preset.judge else ()
    if preset.sfddm:  # it needs no extractor but one to be judged by
        return (*(judge or ("extractor",)), "teacher", f"student-{preset.sfddm.steps}")
    folds = int(math.log2(preset.first_steps))
    smaller = (f"student-{preset.first_steps}",) if preset.student else ()
    return ("extractor", *judge, "teacher", *smaller, *(f"student-{2**i}" for i in reversed(range(folds))))


def base_stage(preset: Preset) -> str:
    """The stage that runs with other losses start from."""
    below = preset.base_steps < preset.first_steps or preset.student is not None
    return f"student-{preset.base_steps}" if below and preset.sfddm is None else "teacher"


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
    """Train everything that `out` does not hold yet, ending with out/student-1, or with the stage `until`.

    start_from: a run whose extractor, judge, teacher and student at preset.base_steps are copied instead of trained.
    deadline: on time.monotonic's clock; OutOfTime past it. Raises UsageError where `out` was told other things.
    """
    keeping = Keeping(deadline, save_seconds, shard_mb * 1_000_000, tensorboard)
    with joined(device) as torch_device:
        check_batches(preset)
        if current().is_main:
            data = data or load_images(preset.data, preset.image_size)  # rank 0 fills the cache, the others read it
            _claim(out, preset, data, start_from, check(preset, data), torch_device)
            for folder in (out, *out.glob(".state/*")):
                remove_leftovers(folder)
        current().barrier()
        data = data or load_images(preset.data, preset.image_size)
        _Run(preset, out, data, ComputeContext(torch_device, preset.compute)).train(keeping, until)


def _claim(
    out: Path, preset: Preset, data: ImageSet, start_from: Path | None, foreign: Foreign | None, device: torch.device
) -> None:
    """Write run.json, or check that the one there asks for the same; copy what another run has trained."""
    wanted = RunFile(
        preset=preset,
        data=preset.data,
        data_sha256=data.sha256,
        data_count=len(data.images),
        started_from=None if start_from is None else str(start_from),
        teacher_sha256=foreign.checkpoint.sha256 if foreign else None,
        lpips_sha256=_backbone_sha256(preset),
        versions={
            "python": platform.python_version(),
            **{n: version(n) for n in ("torch", "diffusers", "rdd-edge")},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
    )
    if (out / RUN_FILE).exists():
        found = read_training_run(out)
        # Where the data lie may differ, after a move to another machine; what they are may not.
        wanted = wanted.model_copy(update={"preset": wanted.preset.model_copy(update={"data": found.preset.data})})
        for field in ("preset", "data_sha256", "started_from", "teacher_sha256", "lpips_sha256"):
            if getattr(found, field) != getattr(wanted, field):
                raise UsageError(f"{out} was begun with another {field}: give the same settings or another --out")
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and is not a run: choose another --out")
    if start_from is not None:
        _copy_base(start_from, out, wanted)
        wanted = wanted.model_copy(update={"compacted": read_training_run(start_from).compacted})
    write_model(out / RUN_FILE, wanted)


def _backbone_sha256(preset: Preset) -> str | None:
    """Of a file that `check` has found, where LPIPS is among the terms."""
    return sha256_of(Path(preset.lpips.backbone)) if uses_lpips(preset) and preset.lpips.backbone else None


def _copy_base(source: Path, out: Path, wanted: RunFile) -> None:
    """Copy the stages up to the base student from a run that trained them on the same data with the same settings."""
    theirs = read_training_run(source)
    shared = ("network", "extractor", "judge", "conditional", "first_steps", "base_steps", "image_size")
    for field in (*shared, "teacher_folder"):
        if getattr(theirs.preset, field) != getattr(wanted.preset, field):
            raise UsageError(f"{source} cannot be started from: its {field} differs from this run's")
    if theirs.data_sha256 != wanted.data_sha256:
        raise UsageError(f"{source} cannot be started from: it was trained on other data")
    names = stage_names(wanted.preset)
    base = base_stage(wanted.preset) if theirs.preset.student == wanted.preset.student else "teacher"
    for name in names[: names.index(base) + 1]:
        if name in ("extractor", "judge", "teacher", base):
            if not (source / name).is_dir():
                raise MissingError(f"{source} has no {name} yet: finish it with rdd-edge distill")
            with new_folder(out / name) as folder:
                shutil.copytree(source / name, folder, dirs_exist_ok=True)


class _Run:
    """The stages of one run, made one after the other from what the run's folder holds."""

    def __init__(self, preset: Preset, out: Path, data: ImageSet, context: ComputeContext) -> None:
        self.preset, self.out, self.context = preset, out, context
        self.batches = Batches(data, context)
        height, width, channels = data.images.shape[1:]
        self.image_shape = (channels, height, width)
        self.classes = None if data.classes is None else len(data.classes)

    def train(self, keeping: Keeping, until: str | None = None) -> None:
        p = self.preset
        names = stage_names(p)
        base = names.index(base_stage(p))
        have_base = (self.out / names[base]).is_dir()
        for position, name in enumerate(names):
            done = (self.out / name).is_dir() or (have_base and names.index("teacher") < position < base)
            if not done:
                run_stage(self._stage(name), self.out, keeping, self.context.device)
            current().barrier()  # the next stage reads what rank 0 has written
            if name == until:
                return
        if current().is_main:
            shutil.rmtree(self.out / ".state", ignore_errors=True)

    def _stage(self, name: str) -> Stage:
        p = self.preset
        if name == "extractor":
            return ClassifierStage(name, self._classifier(p.extractor), p.extractor_training, self.batches, p.seed)
        if name == "judge":
            assert p.judge is not None and p.judge_training is not None
            return ClassifierStage(name, self._classifier(p.judge), p.judge_training, self.batches, p.seed)
        if name == "teacher" and p.teacher_folder is not None:
            return self._conversion(Path(p.teacher_folder))
        if name == "teacher":
            return TeacherStage(self._new(p.network, "teacher/weights"), p.teacher, self.batches, p.seed, p.conditional)
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
            p.conversion or p.pd, self.batches, p.seed, p.conditional, grid=None, role="teacher", method="conversion",
        )  # fmt: skip

    def _smaller(self, network: Network) -> MatchStage:
        """A student of another shape, taught at the teacher's step count."""
        p = self.preset
        teacher = read_checkpoint(self.out / "teacher").load().to(self.context.device).requires_grad_(False)
        return MatchStage(
            f"student-{p.first_steps}", partial(denoiser, teacher), self._new(network, "student/weights"),
            p.student_training or p.pd, self.batches, p.seed, p.conditional,
            grid=p.first_steps, role="student", method="match",
        )  # fmt: skip

    def _single_fold(self, sfddm: Sfddm) -> SfddmStage:
        p, teacher = self.preset, read_checkpoint(self.out / "teacher")
        if p.student is not None:
            student = self._new(p.student, "student/weights")
        elif sfddm.start == "random":
            arguments = {key: value for key, value in teacher.config.items() if not key.startswith("_")}
            student = build_unet(arguments, int(generator(p.seed, "student/weights", 0).initial_seed()))
        else:
            student = teacher.load()
        return SfddmStage(
            teacher.load(), student, student_times(p, sfddm), sfddm.hidden, p.distillation, self.batches, p.seed,
            p.conditional,
        )  # fmt: skip

    def _new(self, network: Network, name: str) -> nn.Module:
        arguments = network.unet(self.image_shape, self.classes if self.preset.conditional else None)
        return build_unet(arguments, int(generator(self.preset.seed, name, 0).initial_seed()))

    def _halving(self, steps: int) -> HalvingStage:
        """The student of `steps` steps: it starts from the weights of its teacher of twice as many."""
        p = self.preset
        teacher = self.out / ("teacher" if 2 * steps == p.first_steps and p.student is None else f"student-{2 * steps}")
        by_pd = steps >= p.base_steps
        losses = Losses(pd=1.0) if by_pd else p.losses
        objective = Objective(
            losses, p.taus, p.memory, steps, self._features() if losses.uses_features else None, self.context,
            self.context.prepare(load_lpips(p.lpips, self.image_shape[0])) if losses.lpips else None,
        )  # fmt: skip
        if objective.extractor is not None:
            channels = int(objective.extractor(torch.zeros(1, *self.image_shape, device=self.context.device)).shape[1])
            objective.prepare(channels, int(generator(p.seed, f"head-{steps}", 0).initial_seed()))
        return HalvingStage(
            read_checkpoint(teacher).load(), read_checkpoint(teacher).load(), steps, "pd" if by_pd else p.method,
            objective, p.halving(steps), self.batches, p.seed, p.conditional,
        )  # fmt: skip

    def _features(self) -> nn.Module:
        return self.context.prepare(load_feature_network(self.out / "extractor")[1])

    def _classifier(self, shape: Extractor) -> ExtractorConfig:
        return ExtractorConfig(**shape.model_dump(), image_shape=self.image_shape, classes=self.classes or 0)
