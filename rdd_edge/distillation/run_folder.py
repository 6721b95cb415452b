"""The folder of a training run: run.json, the stages that its settings ask for, and what another call continues."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..diffusion.checkpoint import REFINED
from ..errors import MissingError, UsageError
from ..files import new_folder, sha256_of, write_model
from ..metrics.classifiers import WEIGHTS as CLASSIFIER
from ..metrics.classifiers import copy_classifier
from ..reading.documents import read_model
from ..schema import Frozen, Sha256, Text
from .config import Preset

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
    teacher_scheduler_sha256: Sha256 | None = None  # its schedule; None also for a run older than this
    student_sha256: Sha256 | None = None  # weights of the one-step student that was given
    lpips_sha256: Sha256 | None = None  # file of the LPIPS backbone
    classifiers_sha256: dict[str, Sha256] = Field(default={})  # weights of the finished extractor and judge
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # for the whole training
    planned: tuple[str, ...] = ()  # settings of the preset that were chosen to fit the minutes
    compacted: tuple[str, ...] = ()  # the point of training at each `rdd-edge compact`
    versions: dict[str, str]


def read_training_run(run: Path) -> RunFile:
    """run.json of a run. Raises MissingError or CorruptError."""
    return read_model(run / RUN_FILE, RunFile)


def stage_names(preset: Preset) -> tuple[str, ...]:
    """Folders of the run's stages in order."""
    refined = (REFINED,) if preset.refines else ()
    compared = preset.sfddm is None and preset.student_folder is None and preset.losses.uses_features
    # For losses, critics, or where there is no judge the evaluation.
    extractor = ("extractor",) if compared or refined or preset.judge is None else ()
    classifiers = (*extractor, "judge") if preset.judge else extractor
    if preset.student_folder is not None:
        return (*classifiers, *refined)
    if preset.sfddm:
        return (*classifiers, "teacher", f"student-{preset.sfddm.steps}", *refined)
    folds = int(math.log2(preset.first_steps))
    smaller = (f"student-{preset.first_steps}",) if preset.student else ()
    halvings = (f"student-{2**i}" for i in reversed(range(folds)))
    return (*classifiers, "teacher", *smaller, *halvings, *refined)


def base_stage(preset: Preset) -> str:
    """The stage that runs with other losses start from."""
    if preset.student_folder is not None:
        return stage_names(preset)[-2]  # all that is trained before the given student is refined
    below = preset.base_steps < preset.first_steps or preset.student is not None
    return f"student-{preset.base_steps}" if below and preset.sfddm is None else "teacher"


def superseded_stages(preset: Preset, run: Path) -> tuple[str, ...]:
    """The teacher and the students before the last finished one, which the rest of the training does not read."""
    chain = [name for name in stage_names(preset) if name not in ("extractor", "judge")]
    finished = [index for index, name in enumerate(chain) if (run / name).is_dir()]
    return tuple(chain[: finished[-1]]) if finished else ()


def prepare_folder(out: Path, new: RunFile, start_from: Path | None, image_shape: tuple[int, int, int]) -> None:
    """Write run.json and copy what is given; or check that `out` is a run with the same settings.

    image_shape: (C, H, W) of the run's data.
    """
    if (out / RUN_FILE).exists():
        existing = read_training_run(out)
        check_same(existing, new, out)
        # Where the data lie and how fast the run computes may have changed.
        chosen = existing.preset.model_copy(update={"data": new.preset.data, "compute": new.preset.compute})
        if chosen != existing.preset:
            write_model(out / RUN_FILE, existing.model_copy(update={"preset": chosen}))
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is neither empty nor a training run: choose another --out")
    if start_from is not None:
        _copy_base(start_from, out, new)
        new = new.model_copy(update={"compacted": read_training_run(start_from).compacted})
    if new.preset.extractor_from is not None and not (out / "extractor").is_dir():
        given = Path(new.preset.extractor_from)
        in_run = given / "extractor"
        copy_classifier(in_run if in_run.is_dir() else given, out / "extractor", image_shape)
    write_model(out / RUN_FILE, new)


def classifiers_sha256(run: Path) -> dict[str, str]:
    """SHA-256 of the weights of a run's finished extractor and judge, by name."""
    return {name: sha256_of(run / name / CLASSIFIER) for name in _finished_classifiers(run)}


def _finished_classifiers(run: Path) -> list[str]:
    return [name for name in ("extractor", "judge") if (run / name).is_dir()]


def with_classifiers(file: RunFile, run: Path) -> RunFile:
    """run.json with the hashes of the classifiers that have been finished since, or `file` itself where none has."""
    if all(name in file.classifiers_sha256 for name in _finished_classifiers(run)):
        return file
    return file.model_copy(update={"classifiers_sha256": {**classifiers_sha256(run), **file.classifiers_sha256}})


def _copy_base(source: Path, out: Path, new: RunFile) -> None:
    """Copy the stages up to the base student from a run that trained them on the same data with the same settings."""
    base_run = read_training_run(source)
    shared: tuple[str, ...] = ("extractor", "extractor_from", "judge", "image_size")
    if new.preset.student_folder is None:
        shared += ("network", "conditional", "first_steps", "base_steps", "teacher_folder")
    for field in shared:
        if getattr(base_run.preset, field) != getattr(new.preset, field):
            raise UsageError(f"cannot start from {source}: its {field} differs from this run's")
    if base_run.data_sha256 != new.data_sha256:
        raise UsageError(f"cannot start from {source}: it was trained on other data")
    names = stage_names(new.preset)
    same = base_run.preset.student == new.preset.student or new.preset.student_folder is not None
    base = base_stage(new.preset) if same else "teacher"
    for name in names[: names.index(base) + 1]:
        if name == "extractor" and name not in stage_names(base_run.preset):
            continue  # it is trained in this run
        if name in ("extractor", "judge", "teacher", base):
            if not (source / name).is_dir():
                raise MissingError(f"{source} has no {name} yet: finish it with rdd-edge distill")
            with new_folder(out / name) as folder:
                shutil.copytree(source / name, folder, dirs_exist_ok=True)


def check_same(existing: RunFile, new: RunFile, out: Path) -> None:
    """Raise UsageError if `new` would train the run `out` differently, naming the first setting that differs.

    What only changes the speed may differ; `minutes` and `started_from` may be left out.
    """
    before, now = (_settings(file, existing.planned) for file in (existing, new))
    for key in before | now:
        old, given = before.get(key, "null"), now.get(key, "null")
        left_out = key in ("minutes", "started_from") and given == "null"
        unknown = key == "teacher_scheduler_sha256" and old == "null"
        if old != given and not left_out and not unknown:
            raise UsageError(
                f"{out} was started with {key}={old[:60]}, and this command asks for {given[:60]}: leave the setting "
                "out to continue the run, or give a different --out"
            )


def _settings(file: RunFile, planned: tuple[str, ...]) -> dict[str, str]:
    """What a run must repeat, as JSON by dotted key."""
    values = file.model_dump(
        mode="json",
        exclude={
            "schema_version",
            "data",
            "data_count",
            "classifiers_sha256",
            "classes",
            "planned",
            "compacted",
            "versions",
        },
    )
    preset = values.pop("preset")
    del preset["data"]  # its hash is compared: a run may have moved to another machine
    preset["compute"] = {"device_noise": preset["compute"]["device_noise"]}  # changes the draws, unlike the others
    return {key: value for key, value in (flat(preset) | flat(values)).items() if key not in planned}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by their dotted key, each value as JSON."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value)
    return found


def inherited(out: Path, start_from: Path | None) -> Preset | None:
    """The settings of the run in `out`, or of the one to start from; None where there is neither.

    Raises CorruptError, and MissingError if `start_from` is no run.
    """
    if (out / RUN_FILE).exists():
        return read_training_run(out).preset
    return None if start_from is None else read_training_run(start_from).preset
