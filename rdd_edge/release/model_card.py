"""The card of a packed model: what it is, how it was made, how good it is by which command, and what it cannot do."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ..diffusion.checkpoint import Checkpoint
from ..diffusion.rounding import Half
from ..distillation.config import ClassifierTraining, Preset, Training
from ..distillation.logs import stage_seconds
from ..distillation.presets import PRESETS
from ..distillation.run import RunFile, stage_names
from ..evaluation.checkpoint import Evaluation

__all__ = ["CARD_FILE", "ModelFacts", "model_card"]

CARD_FILE = "README.md"


@dataclass(frozen=True)
class ModelFacts:
    """What a card is made of. metrics: each extractor as the user named it, and what it found on the packed weights."""

    name: str
    dtype: Half
    packed: Checkpoint
    told: RunFile
    run: Path
    metrics: tuple[tuple[str, Evaluation], ...]


def model_card(facts: ModelFacts) -> str:
    """Markdown."""
    return "\n".join([*_what(facts), *_use(facts), *_training(facts), *_quality(facts), *_limits(facts), ""])


def _what(facts: ModelFacts) -> list[str]:
    channels, height, width = facts.packed.image_shape
    size, count = facts.packed.weights.stat().st_size, _parameters(facts.packed.weights)
    preset = facts.told.preset
    return [
        f"# {facts.name}",
        "",
        f"A diffusion model distilled to {_steps(facts)} by {preset.method.upper()}: images of {width} × {height}, "
        f"{channels} channel{'s' * (channels > 1)}, from Gaussian noise; "
        f"{'by class label' if preset.conditional else 'without labels'}. {count / 1e6:.1f} M parameters, "
        f"{size / 1e6:.1f} MB in {facts.dtype}, SHA-256 `{facts.packed.sha256}`.",
        "",
    ]


def _use(facts: ModelFacts) -> list[str]:
    return [
        "## Use",
        "",
        f"    rdd-edge sample {facts.name} --n 64 --out grid.png",
        f"    rdd-edge export {facts.name} --target android --out bundles",
        "",
        "or, in this folder, `diffusers.UNet2DModel.from_pretrained(\".\")`: it predicts the image itself, and "
        "`DDIMScheduler.from_pretrained(\".\")` beside it samples what `rdd-edge sample` samples.",
        "",
    ]  # fmt: skip


def _training(facts: ModelFacts) -> list[str]:
    told, preset = facts.told, facts.told.preset
    rows = []
    total = 0.0
    for stage in stage_names(preset):
        seconds = stage_seconds(facts.run, stage)
        total += seconds
        minutes = f"{seconds / 60:.1f}" if seconds else "elsewhere"
        rows.append(f"| {stage} | {_recipe(preset, stage)} | {minutes} |")
    changed = _changed(preset)
    return [
        "## Training",
        "",
        f"Data: {Path(told.data).name}, {told.data_count} images (SHA-256 of the pixels and labels "
        f"`{told.data_sha256}`).",
        "",
        "| stage | recipe | minutes |",
        "|---|---|---:|",
        *rows,
        "",
        f"{total / 60:.1f} minutes of training, begun on {told.versions.get('device', 'an unnamed device')} with "
        f"torch {told.versions['torch']}.",
        *(f"The run was moved in half precision, without its optimizer: {point}." for point in told.compacted),
        "",
        f"    rdd-edge distill --preset {preset.name} --data {Path(told.data).name} {changed}--out RUN",
        "",
    ]


def _quality(facts: ModelFacts) -> list[str]:
    rows = []
    for spec, found in facts.metrics:
        command = (
            f"rdd-edge evaluate {facts.name} --n {found.samples} --seed {found.seed} "
            f"--data {Path(facts.told.data).name} --extractor {_shortened(spec)}"
        )
        (row,) = found.rows
        score = "" if row.inception_score is None else f", IS {row.inception_score:.2f} ± {row.inception_spread:.2f}"
        rows.append(f"| {found.metric} | {row.distance:.3f}{score} | {found.floor:.3f} | `{command}` |")
    return [
        "## Quality",
        "",
        f"Measured on these weights as they lie here, rounded to {facts.dtype}, not on those they were rounded from.",
        "Lower is better; the floor is one half of the real images against the other.",
        "",
        "| metric | value | floor | command |",
        "|---|---:|---:|---|",
        *rows,
        "",
    ]


def _limits(facts: ModelFacts) -> list[str]:
    _, height, width = facts.packed.image_shape
    free = [] if facts.told.preset.conditional else ["- No choice of class: the noise alone decides what is drawn."]
    return [
        "## Limits",
        "",
        f"- It draws what its training data show, at {width} × {height}, with their biases, and nothing else.",
        *free,
        f"- It was trained for {_steps(facts)}; more do not improve it.",
        "- The metrics are of one training run and one seed; those of other sample counts do not compare.",
    ]


def _steps(facts: ModelFacts) -> str:
    steps = facts.packed.card.sampling_steps if facts.packed.card else None
    return "one sampling step" if steps == 1 else f"{steps} sampling steps"


def _parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(str(weights), "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def _recipe(preset: Preset, stage: str) -> str:
    """One stage's training in words."""
    if stage in ("extractor", "judge"):
        found = preset.extractor_training if stage == "extractor" else preset.judge_training
        assert isinstance(found, ClassifierTraining)
        return f"{found.epochs} epochs, batch {found.batch}, rate {found.rate:g}"
    if stage == "teacher":
        return _words(preset.teacher if preset.teacher_folder is None else preset.conversion or preset.pd)
    if preset.sfddm:
        return f"sfddm: {_words(preset.distillation)}"
    steps = int(stage.removeprefix("student-"))
    method = "pd" if steps >= preset.base_steps else preset.method
    return f"{method}: {_words(preset.halving(steps))}"


def _words(training: Training) -> str:
    return f"{training.steps} steps, batch {training.batch}, rate {training.rate:g}"


def _changed(preset: Preset) -> str:
    """The settings that differ from the preset's own, as the command line takes them."""
    plain = PRESETS[preset.name].model_dump() if preset.name in PRESETS else {}
    return "".join(f"--set '{key}={value}' " for key, value in _differences(plain, preset.model_dump(), ""))


def _differences(old: dict[str, object], new: dict[str, object], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found += _differences(before, value, f"{prefix}{key}.")
        elif value != before and prefix + key != "data":
            found.append((prefix + key, json.dumps(value).replace(" ", "")))
    return found


def _shortened(spec: str) -> str:
    """An extractor as the card names it: without the folders of the machine it was measured on."""
    name, colon, file = spec.partition(":")
    return f"{name}{colon}{Path(file).name}" if colon else f"RUN/{Path(spec).name}"
