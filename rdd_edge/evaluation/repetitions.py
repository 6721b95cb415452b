"""Which checkpoints of several training runs are repetitions of one another, and which differ in a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..diffusion.checkpoint import REFINED, read_checkpoint
from ..distillation.config import Preset
from ..distillation.run_folder import flat, read_training_run
from ..errors import MissingError, UsageError

BASELINE = "ddim"  # the teacher's row

# Settings that no student's weights depend on, and `terms`, which are the method.
IGNORED = {"name", "data", "seed", "judge", "judge_training", "compute", "terms"}
# Those that the base student and the students above it do not depend on, ...
BELOW_BASE = {"alpha", "beta", "taus", "memory", "lpips", "distillation", "pd_late", "sfddm"}
# ... and all that the teacher depends on.
TEACHER = {"image_size", "conditional", "network", "teacher", "most_weight", "teacher_folder", "conversion"}

Settings = dict[str, str]


@dataclass(frozen=True)
class _Measured:
    """A checkpoint in a number of sampling steps.  settings: those that it depends on, by dotted key, as JSON."""

    method: str
    steps: int
    path: Path
    sha256: str
    settings: Settings


def table_rows(runs: Sequence[Path]) -> dict[tuple[str, int], list[Path]]:
    """The checkpoints of each row, by its name and number of steps.

    Rows: the teachers in every number of steps of a student, and the students at and below each run's base step count.
    Checkpoints of runs that differ in nothing but the seed share a row; others are named by the settings that differ.
    A checkpoint that runs have copied from one another counts once.
    Raises UsageError for runs on different data, MissingError for a run without students.
    """
    groups: dict[tuple[str, int], dict[str, _Measured]] = {}
    for one in _measured(runs):
        groups.setdefault((one.method, one.steps), {}).setdefault(one.sha256, one)
    rows: dict[tuple[str, int], list[Path]] = {}
    for (method, steps), group in groups.items():
        every = [one.settings for one in group.values()]
        keys = sorted({key for settings in every for key in settings})
        differing = [key for key in keys if len({settings.get(key) for settings in every}) > 1]
        for one in group.values():
            named = ", ".join(f"{key}={one.settings.get(key, 'null')}" for key in differing)
            rows.setdefault((f"{method} ({named})" if named else method, steps), []).append(one.path)
    return rows


def require_equal_judges(runs: Sequence[Path]) -> None:
    """Raises UsageError for runs whose judges differ in a setting: their distances are in different features."""
    presets = [read_training_run(run).preset for run in runs]
    judges = [(p.judge or p.extractor, p.judge_training or p.extractor_training) for p in presets]
    for run, judge in zip(runs, judges, strict=True):
        if judge != judges[0]:
            raise UsageError(f"{runs[0]} and {run} have judges of different settings: give --extractor for all")


def _measured(runs: Sequence[Path]) -> list[_Measured]:
    files = [read_training_run(run) for run in runs]
    students: list[_Measured] = []
    for run, file in zip(runs, files, strict=True):
        if file.data_sha256 != files[0].data_sha256:
            raise UsageError(f"{run} and {runs[0]} were trained on different data and cannot be compared")
        found = _students(run, file.preset)
        if not found:
            raise MissingError(f"the training run {run} has no student yet: finish it with rdd-edge distill")
        students += found
    counts = sorted({student.steps for student in students}, reverse=True)
    teachers = [
        _Measured(
            BASELINE, n, path, read_checkpoint(path).sha256, flat(file.preset.model_dump(mode="json", include=TEACHER))
        )
        for run, file in zip(runs, files, strict=True)
        if (path := run / "teacher").is_dir()
        for n in counts
    ]
    return teachers + students


def _students(run: Path, preset: Preset) -> list[_Measured]:
    most = preset.sfddm.steps if preset.sfddm else preset.base_steps
    students = []
    for path in (*run.glob("student-*"), *run.glob(REFINED)):
        checkpoint = read_checkpoint(path)
        card, refined = checkpoint.card, path.name == REFINED
        if card is None or card.sampling_steps is None or card.sampling_steps > most:
            continue
        above = preset.sfddm is None and not refined and card.sampling_steps >= preset.base_steps
        unread = IGNORED | (BELOW_BASE if above else set()) | (set() if refined else {"refining"})
        settings = flat(preset.model_dump(mode="json", exclude=unread))
        students.append(_Measured(card.method, card.sampling_steps, path, checkpoint.sha256, settings))
    return sorted(students, key=lambda student: (-student.steps, student.path.name == REFINED))
