"""Arguments and options that several commands share, and the parsing of their values."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..errors import UsageError

MOST_SAMPLES = 10_000_000
MOST_SEED = 2**64 - 1
Checkpoint = Annotated[
    Path,
    Argument(
        help="Training run (its one-step student), diffusers UNet2DModel folder, name of a shipped model, or Hugging "
        "Face Hub id."
    ),
]
Data = Annotated[str | None, Option(help='"digits" or a path to images.  Default: the data of the training run.')]
Extractor = Annotated[
    str | None,
    Option(
        help="Folder of a classifier, inception[:FILE] for FID, or resnet20:FILE.  Default: the training run's judge."
    ),
]
Prediction = Annotated[
    str | None,
    Option(help="What a one-step student of another tool predicts: epsilon, v or sample.  Not for students of ours."),
]
Timestep = Annotated[
    int | None, Option(min=0, help="With --prediction, the timestep of its own schedule.  Default: the last.")
]
Samples = Annotated[int, Option("--n", "-n", min=2, max=MOST_SAMPLES, help="Number of samples to measure.")]
Seed = Annotated[int, Option(min=0, max=MOST_SEED, help="Seed of the sampling noise.")]


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinity, which compare with any bound as they like."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def is_main_process() -> bool:
    """Whether this process prints and writes: of those under torchrun the first."""
    return os.environ.get("RANK", "0") == "0"


def parse_fraction(text: str | None) -> float | None:
    """ "5%" or "0.05" as 0.05. Raises UsageError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*(%?)", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"{text!r} is not a fraction: write 5% or 0.05")
    return float(match[1]) / (100.0 if match[2] else 1.0)


def parse_numbers(option: str, text: str) -> list[float]:
    """Comma-separated numbers. Raises UsageError."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text} is not a list of numbers such as 0.5,0.7,1") from None
