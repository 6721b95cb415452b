"""The model card: what the model is, how to use it, how it was trained, its quality and its limitations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..diffusion.checkpoint import REFINED, Checkpoint
from ..diffusion.rounding import Half
from ..distillation.config import ClassifierTraining, Preset, Training
from ..distillation.logs import stage_seconds
from ..distillation.presets import PRESETS
from ..distillation.run_folder import RunFile, stage_names
from ..evaluation.checkpoint import Evaluation
from ..reading.tensors import count_values, read_header

CARD_FILE = "README.md"
CARD = """\
# {name}

A diffusion model distilled to {steps} with {method}. It generates images of {width} × {height} pixels with {channels} \
from Gaussian noise, {conditioning}. {parameters:.1f} M parameters, {megabytes:.1f} MB in {dtype}, SHA-256 `{sha256}`.

## Use

    rdd-edge sample {name} --n 64 --out grid.png
    rdd-edge export {name} --target android --out bundles

With diffusers, load `UNet2DModel.from_pretrained(".")` and `DDIMScheduler.from_pretrained(".")` in this folder; the \
network predicts the image itself, and the scheduler samples as `rdd-edge sample` does.

## Training

Data: {data}, {run.data_count} images (SHA-256 of the pixels and labels `{run.data_sha256}`).

| stage | recipe | minutes |
|---|---|---:|
{stages}

{minutes:.1f} minutes of training, started on {device} with torch {run.versions[torch]}.
{compacted}
    rdd-edge distill --preset {run.preset.name} --data {data} {changed}--out RUN

## Quality

Measured on the weights of this folder, after rounding to {dtype}. Lower is better for Fréchet
distances; the third column is the distance that as many other real images have, with its standard deviation.

| metric | value | real images | command |
|---|---:|---:|---|
{metrics}

## Limits

- It generates images like its training data, at {width} × {height} pixels, with their biases.
{unconditional}- It was trained for {steps}; more steps do not improve it.
- The metrics are of one training run and one seed, and comparable only with the same number of samples.
"""


@dataclass(frozen=True)
class ModelFacts:
    """The facts in a card.

    metrics: evaluations of the packed weights, each with its extractor as the user gave it, or None for the judge that
    is packed with them.
    """

    name: str
    dtype: Half
    packed: Checkpoint
    run_file: RunFile
    run: Path
    metrics: tuple[tuple[str | None, Evaluation], ...]


def model_card(facts: ModelFacts) -> str:
    """The card as Markdown."""
    run_file, preset, packed = facts.run_file, facts.run_file.preset, facts.packed
    channels, height, width = packed.image_shape
    minutes = {stage: stage_seconds(facts.run, stage) / 60 for stage in stage_names(preset)}
    unconditional = "- The class of an image cannot be chosen: the model is unconditional.\n"
    compacted = "The run was continued from half-precision weights, without optimizer state: {}.\n"
    return CARD.format(
        name=facts.name,
        steps=_steps(packed),
        method=preset.method.upper() + (" and refined with real images" if preset.refines else ""),
        width=width,
        height=height,
        channels=f"{channels} channel{'s' * (channels > 1)}",
        conditioning="conditioned on a class label" if preset.conditional else "unconditionally",
        parameters=count_values(read_header(packed.weights)) / 1e6,
        megabytes=packed.weights.stat().st_size / 1e6,
        dtype=facts.dtype,
        sha256=packed.sha256,
        run=run_file,
        data=Path(run_file.data).name,
        stages="\n".join(
            f"| {stage} | {_recipe(preset, stage)} | {f'{spent:.1f}' if spent else 'elsewhere'} |"
            for stage, spent in minutes.items()
        ),
        minutes=sum(minutes.values()),
        device=run_file.versions.get("device", "an unnamed device"),
        compacted="".join(compacted.format(point) for point in run_file.compacted),
        changed=_changed(preset),
        metrics="\n".join(_metric(facts, spec, evaluation) for spec, evaluation in facts.metrics),
        unconditional="" if preset.conditional else unconditional,
    )


def _metric(facts: ModelFacts, spec: str | None, evaluation: Evaluation) -> str:
    """A row of the table of metrics."""
    command = (
        f"rdd-edge evaluate {facts.name} --n {evaluation.samples} --seed {evaluation.seed} "
        f"--data {Path(facts.run_file.data).name}" + (f" --extractor {_shortened(spec)}" if spec else "")
    )
    (row,) = evaluation.rows
    score = ""
    if row.inception_score is not None:
        score = f", Inception score {row.inception_score:.2f} ± {row.inception_spread:.2f}"
    real_images = f"{evaluation.floor:.3f} ± {evaluation.floor_spread:.3f}"
    return f"| {evaluation.metric} | {row.distance:.3f}{score} | {real_images} | `{command}` |"


def _steps(packed: Checkpoint) -> str:
    steps = packed.card.sampling_steps if packed.card else None
    return "one sampling step" if steps == 1 else f"{steps} sampling steps"


def _recipe(preset: Preset, stage: str) -> str:
    """One stage's training in words."""
    if stage in ("extractor", "judge"):
        classifier = preset.extractor_training if stage == "extractor" else preset.judge_training
        assert isinstance(classifier, ClassifierTraining)
        return f"{classifier.epochs} epochs, batch {classifier.batch}, rate {classifier.rate:g}"
    if stage == "teacher":
        return _words(preset.teacher if preset.teacher_folder is None else preset.conversion or preset.pd)
    if stage == REFINED and preset.refining:
        return f"critics on real images: {_words(preset.refining.training)}"
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
