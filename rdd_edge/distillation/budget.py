"""Shares a time for the whole training among its stages, by their measured speed.

A stage is measured where it begins, so that its networks are compiled only once, and gets its share of the time that is
left then: later stages make up for one that took longer or shorter. Stages with the same training, such as all PD
halvings, are planned together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import torch

from ..console import reporter
from ..diffusion.checkpoint import REFINED
from .config import ClassifierTraining, Preset, Training
from .presets import changed
from .stages.base import Stage
from .stages.classifier import ClassifierStage

# Parts of the time, by the setting that is planned. A teacher that has not converged limits every student.
SHARES = {
    "extractor_training.epochs": 0.08,
    "judge_training.epochs": 0.04,
    "teacher.steps": 0.45,
    "conversion.steps": 0.15,
    "student_training.steps": 0.12,
    "pd.steps": 0.12,
    "distillation.steps": 0.12,
    "refining.training.steps": 0.2,
}
WARM_UP = 3  # steps in which networks are compiled and cuDNN chooses its kernels
FEW_STEPS = 20  # fewer leave a student where it began
MOST_STEPS, MOST_SHARE = 20, 0.01  # of the measurement after them, in steps and in the whole time


def planned_key(preset: Preset, stage: str) -> str:
    """The setting with the stage's number of steps, or of epochs."""
    if stage in ("extractor", "judge"):
        return f"{stage}_training.epochs"
    if stage == REFINED:
        return "refining.training.steps"
    if stage == "teacher":
        foreign = "conversion.steps" if preset.conversion else "pd.steps"
        return "teacher.steps" if preset.teacher_folder is None else foreign
    if preset.sfddm:
        return "distillation.steps"
    steps = int(stage.removeprefix("student-"))
    if preset.student and steps == preset.first_steps:
        return "student_training.steps" if preset.student_training else "pd.steps"
    late = preset.pd_late and preset.method == "pd"
    return "pd.steps" if steps >= preset.base_steps or late else "distillation.steps"


def plan(preset: Preset, ahead: Sequence[str], seconds: float, unit_seconds: float) -> Preset:
    """The preset with a number of steps or epochs for the first stage ahead, and for all with the same setting.

    ahead: names of the stages that are not finished.  seconds: what is left for them.  unit_seconds: of a step, or of
    an epoch.
    """
    keys = [planned_key(preset, name) for name in ahead]
    part = seconds * SHARES[keys[0]] / sum(SHARES[key] for key in set(keys))
    units = sum(_units(preset, name, keys[0]) for name, key in zip(ahead, keys, strict=True) if key == keys[0])
    count = max(1, int(part / (units * unit_seconds)))
    more = ""
    if isinstance(training := _training(preset, keys[0]), ClassifierTraining):
        count = min(count, training.epochs)  # as many as it needs; the teacher can use the time
    elif count < FEW_STEPS:
        more = "; too few to train on this machine: give more --minutes"
    reporter().note(f"{keys[0]}={count} for {max(part, 0.0) / 60:.1f} minutes{more}")
    return changed(preset, [f"{keys[0]}={json.dumps(count)}"])


def unit_seconds(stage: Stage, device: torch.device, minutes: float) -> float:
    """Seconds of a step of the stage, or of an epoch of a classifier, measured in a small part of these minutes.

    The stage has been trained for some steps then, and is not to be used.
    """
    reporter().begin(f"measuring the speed of {stage.name}")
    for index in range(WARM_UP):
        stage.step(index, log=False)
    done, began = 0, _synchronized(device)
    while done < 1 or (done < MOST_STEPS and _synchronized(device) - began < MOST_SHARE * 60 * minutes):
        stage.step(WARM_UP + done, log=False)
        done += 1
    step = (_synchronized(device) - began) / done
    reporter().end()
    return step * stage.epoch_steps if isinstance(stage, ClassifierStage) else step


def _synchronized(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def _units(preset: Preset, stage: str, key: str) -> float:
    """How many times as many steps as its setting says a stage takes: PD's last students may take twice as many."""
    if not stage.startswith("student-") or preset.sfddm or key != "pd.steps":
        return 1.0
    steps = int(stage.removeprefix("student-"))
    return 1.0 if preset.student and steps == preset.first_steps else preset.halving(steps).steps / preset.pd.steps


def _training(preset: Preset, key: str) -> Training | ClassifierTraining:
    value: object = preset
    for name in key.split(".")[:-1]:
        value = getattr(value, name)
    assert isinstance(value, Training | ClassifierTraining)
    return value
