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
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import __version__
from ..data import ImageSet, load_images
from ..diffusion.checkpoint import REFINED, STUDENT, Checkpoint, read_checkpoint
from ..diffusion.external_teacher import foreign_denoiser, read_foreign
from ..diffusion.network import build_unet, denoiser
from ..diffusion.schedule import MOST_WEIGHT
from ..distributed import current, gather_arrays, joined
from ..errors import UsageError
from ..files import remove_leftovers, sha256_of, write_model
from ..metrics.classifiers import load_feature_network
from ..metrics.networks import ExtractorConfig
from .batches import ImageBatches
from .budget import plan, planned_key, unit_seconds
from .checks import check, check_batches, student_times, uses_lpips
from .compute_context import ComputeContext, generator
from .config import Losses, Network, Preset, Refining, Sfddm
from .interrupts import Interrupts
from .logs import stage_seconds, write_seconds
from .losses.critics import new_critics
from .losses.lpips import load_lpips
from .losses.objective import Objective
from .rotations import RotatedBatches, classifier_classes, without_mirrors
from .run_folder import (
    RUN_FILE,
    RunFile,
    prepare_folder,
    read_training_run,
    stage_names,
    superseded_stages,
    with_classifiers,
)
from .stages.base import Stage
from .stages.classifier import ClassifierStage
from .stages.halving import HalvingStage
from .stages.matching import MatchStage
from .stages.refining import RefiningStage
from .stages.sfddm import SfddmStage
from .stages.teacher import TeacherStage
from .trainer import SAVE_SECONDS, OutOfTime, TrainerOptions, run_stage

COMPILE_SECONDS = 60.0  # what compiling a stage is taken to need before one was measured


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
    minutes: float | None = None,
) -> None:
    """Train every stage that `out` does not hold yet, up to its one-step student or the stage `until`.

    start_from: a run whose extractor, judge, teacher and student at preset.base_steps are copied instead of trained.
    deadline: on time.monotonic's clock; raises OutOfTime past it, and KeyboardInterrupt after Ctrl-C.
    minutes: for the whole training, over all calls; the stages' steps are chosen to fit (see budget.py).
    Raises UsageError if `out` has other settings; those that only change the speed may differ.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"{minutes} minutes: give a number above 0")
    options = TrainerOptions(deadline, save_seconds, shard_mb * 1_000_000, tensorboard)
    with joined(device) as torch_device:
        check_batches(preset)
        if current().is_main:
            data = data or load_images(preset.data, preset.image_size)  # rank 0 fills the cache, the others read it
            given = check(preset, data)
            prepare_folder(
                out, _new_run_file(preset, data, start_from, given, torch_device, minutes), start_from, data.image_shape
            )
            for folder in (out, *out.glob(".state/*")):
                remove_leftovers(folder)
        current().barrier()
        data = data or load_images(preset.data, preset.image_size)
        _Training(out, data, ComputeContext(torch_device, preset.compute)).run(options, until)


def _new_run_file(
    preset: Preset, data: ImageSet, start_from: Path | None, given: Checkpoint | None, device: torch.device,
    minutes: float | None,
) -> RunFile:  # fmt: skip
    backbone = preset.lpips.backbone if uses_lpips(preset) else None
    teacher = given if preset.teacher_folder else None
    return RunFile(
        preset=preset,
        data=preset.data,
        data_sha256=data.sha256,
        data_count=len(data.images),
        classes=data.class_names,
        started_from=None if start_from is None else str(start_from),
        teacher_sha256=teacher.sha256 if teacher else None,
        teacher_scheduler_sha256=sha256_of(teacher.scheduler) if teacher else None,
        student_sha256=given.sha256 if given and preset.student_folder else None,
        lpips_sha256=sha256_of(Path(backbone)) if backbone else None,
        minutes=minutes,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers")},
            "rdd-edge": __version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
    )


class _Training:
    """The stages of one run, each built from the finished ones in the run's folder."""

    def __init__(self, out: Path, data: ImageSet, context: ComputeContext) -> None:
        self.out, self.context, self.run_file = out, context, read_training_run(out)
        self.preset = self.run_file.preset
        self.batches = ImageBatches(data, context)
        # Arguments of every stage that trains a U-Net.
        self.common = (self.batches, self.preset.seed, self.preset.conditional)
        self.image_shape = data.image_shape
        self.classes = None if data.classes is None else len(data.classes)
        self.classifier_classes = classifier_classes(data)

    def run(self, options: TrainerOptions, until: str | None) -> None:
        longest = COMPILE_SECONDS if self.context.compiles else 0.0  # until the first step of a stage is done
        with Interrupts() as interrupts:
            for name in stage_names(self.preset):
                if self._is_ahead(name):
                    self._require_time(name, options.deadline, longest, interrupts)
                    began = time.monotonic()
                    stage = self._paced(name)
                    building = time.monotonic() - began
                    first = run_stage(stage, self.out, options, self.context.device, interrupts)
                    longest = max(longest, building + first)
                    before, self.run_file = self.run_file, with_classifiers(self.run_file, self.out)
                    if current().is_main and self.run_file is not before:
                        write_model(self.out / RUN_FILE, self.run_file)
                current().barrier()  # the next stage reads what rank 0 has written
                if name == until:
                    return
        if current().is_main:
            shutil.rmtree(self.out / ".state", ignore_errors=True)

    def _is_ahead(self, name: str) -> bool:
        return not (self.out / name).is_dir() and name not in superseded_stages(self.preset, self.out)

    def _require_time(self, name: str, deadline: float, compiling: float, interrupts: Interrupts) -> None:
        if current().agree(interrupts.asked, self.context.device):
            raise KeyboardInterrupt(f"stopped before stage {name}")
        left = deadline - time.monotonic()
        if current().agree(left <= compiling, self.context.device):
            raise OutOfTime(f"stopped before stage {name}" + (", too late to compile its networks" if left > 0 else ""))

    def _paced(self, name: str) -> Stage:
        """The stage, once its number of steps is chosen if the run is given minutes (see budget.py)."""
        key, minutes, began = planned_key(self.preset, name), self.run_file.minutes, time.monotonic()
        if minutes is None or key in self.run_file.planned:
            return self._stage(name)
        own = unit_seconds(self._stage(name), self.context.device, minutes)
        unit = float(gather_arrays(np.array([own]))[0][0])  # rank 0's
        names = stage_names(self.preset)
        spent = sum(stage_seconds(self.out, other) for other in names) + time.monotonic() - began
        left = float(gather_arrays(np.array([60 * minutes - spent]))[0][0])
        self.preset = plan(self.preset, [other for other in names if self._is_ahead(other)], left, unit)
        planned = (*self.run_file.planned, key)
        self.run_file = self.run_file.model_copy(update={"preset": self.preset, "planned": planned})
        if current().is_main:
            write_model(self.out / RUN_FILE, self.run_file)
            write_seconds(self.out, name, time.monotonic() - began)
        return self._stage(name)

    def _stage(self, name: str) -> Stage:
        p = self.preset
        if name in ("extractor", "judge"):
            shape = getattr(p, name).model_dump()
            config = ExtractorConfig(**shape, image_shape=self.image_shape, classes=self.classifier_classes)
            training, batches = getattr(p, f"{name}_training"), self.batches
            if self.classifier_classes != self.classes:
                training, batches = without_mirrors(training), RotatedBatches(batches, self.classifier_classes)
            return ClassifierStage(name, config, training, batches, p.seed)
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
        predict = partial(
            foreign_denoiser, self._frozen(foreign.checkpoint), foreign.schedule.to(self.context.device),
            precision=self.context.autocast,
        )  # fmt: skip
        return MatchStage(
            "teacher", predict, foreign.checkpoint.load(), p.conversion or p.pd, *self.common, grid=None,
            role="teacher", method="conversion",
        )  # fmt: skip

    def _smaller(self, network: Network) -> MatchStage:
        """A student of another shape, taught at the teacher's number of sampling steps."""
        p, teacher = self.preset, self._frozen(read_checkpoint(self.out / "teacher"))
        return MatchStage(
            f"student-{p.first_steps}", partial(denoiser, teacher, precision=self.context.autocast),
            self._new_unet(network, "student/weights"), p.student_training or p.pd, *self.common, grid=p.first_steps,
            role="student", method="match",
        )  # fmt: skip

    def _frozen(self, checkpoint: Checkpoint) -> nn.Module:
        return self.context.prepare(checkpoint.load()).eval().requires_grad_(False)

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
            # Not the compiled network: that would compile for a batch of one.
            channels = int(extractor.forward(torch.zeros(1, *self.image_shape, device=self.context.device)).shape[1])
            objective.prepare(channels, self._seed(f"head-{steps}"))
        return objective

    def _new_unet(self, network: Network, key: str) -> nn.Module:
        arguments = network.unet(self.image_shape, self.classes if self.preset.conditional else None)
        return build_unet(arguments, self._seed(key))

    def _seed(self, key: str) -> int:
        """The seed of initial weights."""
        return int(generator(self.preset.seed, key, 0).initial_seed())
