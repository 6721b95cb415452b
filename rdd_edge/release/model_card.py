"""The model card: what the model is, how to use it, how it was trained, its quality and its limitations."""

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
    """The facts in a card. metrics: each extractor as the user gave it, with the evaluation of the packed weights."""

    name: str
    dtype: Half
    packed: Checkpoint
    run_file: RunFile
    run: Path
    metrics: tuple[tuple[str, Evaluation], ...]


def model_card(facts: ModelFacts) -> str:
    """The card as Markdown."""
    return "\n".join([*_what(facts), *_use(facts), *_training(facts), *_quality(facts), *_limits(facts), ""])


def _what(facts: ModelFacts) -> list[str]:
    channels, height, width = facts.packed.image_shape
    size, count = facts.packed.weights.stat().st_size, _parameters(facts.packed.weights)
    preset = facts.run_file.preset
    return [
        f"# {facts.name}",
        "",
        f"A diffusion model distilled to {_steps(facts)} with {preset.method.upper()}. It generates images of "
        f"{width} × {height} pixels with {channels} channel{'s' * (channels > 1)} from Gaussian noise, "
        f"{'conditioned on a class label' if preset.conditional else 'unconditionally'}. {count / 1e6:.1f} M "
        f"parameters, {size / 1e6:.1f} MB in {facts.dtype}, SHA-256 `{facts.packed.sha256}`.",
        "",
    ]


def _use(facts: ModelFacts) -> list[str]:
    return [
        "## Use",
        "",
        f"    rdd-edge sample {facts.name} --n 64 --out grid.png",
        f"    rdd-edge export {facts.name} --target android --out bundles",
        "",
        "With diffusers, load `UNet2DModel.from_pretrained(\".\")` and `DDIMScheduler.from_pretrained(\".\")` in this "
        "folder; the network predicts the image itself, and the scheduler samples as `rdd-edge sample` does.",
        "",
    ]  # fmt: skip


def _training(facts: ModelFacts) -> list[str]:
    run_file, preset = facts.run_file, facts.run_file.preset
    rows, total = [], 0.0
    for stage in stage_names(preset):
        seconds = stage_seconds(facts.run, stage)
        total += seconds
        minutes = f"{seconds / 60:.1f}" if seconds else "elsewhere"
        rows.append(f"| {stage} | {_recipe(preset, stage)} | {minutes} |")
    changed = _changed(preset)
    return [
        "## Training",
        "",
        f"Data: {Path(run_file.data).name}, {run_file.data_count} images (SHA-256 of the pixels and labels "
        f"`{run_file.data_sha256}`).",
        "",
        "| stage | recipe | minutes |",
        "|---|---|---:|",
        *rows,
        "",
        f"{total / 60:.1f} minutes of training, started on {run_file.versions.get('device', 'an unnamed device')} with "
        f"torch {run_file.versions['torch']}.",
        *(
            f"The run was continued from half-precision weights, without optimizer state: {point}."
            for point in run_file.compacted
        ),
        "",
        f"    rdd-edge distill --preset {preset.name} --data {Path(run_file.data).name} {changed}--out RUN",
        "",
    ]


def _quality(facts: ModelFacts) -> list[str]:
    rows = []
    for spec, evaluation in facts.metrics:
        command = (
            f"rdd-edge evaluate {facts.name} --n {evaluation.samples} --seed {evaluation.seed} "
            f"--data {Path(facts.run_file.data).name} --extractor {_shortened(spec)}"
        )
        (row,) = evaluation.rows
        score = (
            ""
            if row.inception_score is None
            else f", Inception score {row.inception_score:.2f} ± {row.inception_spread:.2f}"
        )
        rows.append(f"| {evaluation.metric} | {row.distance:.3f}{score} | {evaluation.floor:.3f} | `{command}` |")
    return [
        "## Quality",
        "",
        f"Measured on the weights of this folder, after rounding to {facts.dtype}. Lower is better for Fréchet",
        "distances; for comparison, the third column is the distance of half of the real images to the other half.",
        "",
        "| metric | value | real images | command |",
        "|---|---:|---:|---|",
        *rows,
        "",
    ]


def _limits(facts: ModelFacts) -> list[str]:
    _, height, width = facts.packed.image_shape
    unconditional = "- The class of an image cannot be chosen: the model is unconditional."
    return [
        "## Limits",
        "",
        f"- It generates images like its training data, at {width} × {height} pixels, with their biases.",
        *([] if facts.run_file.preset.conditional else [unconditional]),
        f"- It was trained for {_steps(facts)}; more steps do not improve it.",
        "- The metrics are of one training run and one seed, and comparable only with the same number of samples.",
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
        classifier = preset.extractor_training if stage == "extractor" else preset.judge_training
        assert isinstance(classifier, ClassifierTraining)
        return f"{classifier.epochs} epochs, batch {classifier.batch}, rate {classifier.rate:g}"
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
    """The settings that differ from the preset's, as options of the command line."""
    defaults = PRESETS[preset.name].model_dump() if preset.name in PRESETS else {}
    return "".join(f"--set '{key}={value}' " for key, value in _differences(defaults, preset.model_dump(), ""))


def _differences(old: dict[str, object], new: dict[str, object], prefix: str) -> list[tuple[str, str]]:
    differences: list[tuple[str, str]] = []
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            differences += _differences(before, value, f"{prefix}{key}.")
        elif value != before and prefix + key != "data":
            differences.append((prefix + key, json.dumps(value).replace(" ", "")))
    return differences


def _shortened(spec: str) -> str:
    """An extractor as the card names it, without the folders of this machine."""
    name, colon, file = spec.partition(":")
    return f"{name}{colon}{Path(file).name}" if colon else f"RUN/{Path(spec).name}"
