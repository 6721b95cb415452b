"""Teachers that others trained: a diffusers UNet2DModel with its own schedule, predicting ε, v or x.

It is asked at the index of its own schedule with our logSNR, clamped to its range, and its answer is converted to x̂
with its own α, σ there. Equal logSNR is equal angle atan(σ/α), our t·π/2, so the map is between times and stays finite
where a schedule ends at ᾱ = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..dependencies import import_diffusers
from ..errors import CorruptError, MissingError, UsageError, first_line
from ..files import read_json
from .checkpoint import Checkpoint, read_checkpoint
from .network import Denoiser
from .schedule import alpha_sigma, per_image

__all__ = ["Foreign", "Schedule", "check_fit", "foreign_denoiser", "read_foreign", "read_schedule", "to_x"]

Prediction = Literal["epsilon", "v_prediction", "sample"]
BETA_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


@dataclass(frozen=True)
class Schedule:
    """times: (K,) float64, increasing: our time with the SNR of each of its indices 0 … K - 1.

    betas: (K,), or one more where ᾱ ends at 0 and the network predicts ε, which has no x̂ there.
    """

    times: Tensor
    betas: Tensor
    prediction: Prediction

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Its index, fractional, and our time of that index, for our times t (N,); both clamped to its range."""
        times = self.times.to(t.device)
        inside = t.double().clamp(times[0], times[-1])  # (N,)
        above = torch.searchsorted(times, inside).clamp(1, len(times) - 1)
        low, high = times[above - 1], times[above]
        index = above - 1 + (inside - low) / (high - low).clamp(min=1e-12)
        return index.to(t.dtype), inside.to(t.dtype)


@dataclass(frozen=True)
class Foreign:
    """A foreign teacher found whole."""

    checkpoint: Checkpoint
    schedule: Schedule


def read_foreign(folder: Path) -> Foreign:
    """A teacher from a folder or the Hugging Face Hub, as `read_checkpoint` finds it, with its scheduler.

    Raises MissingError, CorruptError, and UsageError for a network or a schedule that cannot be a teacher.
    """
    checkpoint = read_checkpoint(folder)
    schedule = read_schedule(checkpoint.scheduler)
    config = checkpoint.config
    if config.get("sample_size") is None:
        raise UsageError(f"the teacher {folder} does not say its image size: set sample_size in its config.json")
    if config.get("in_channels") != config.get("out_channels"):
        raise UsageError(
            f"the teacher {folder} takes {config.get('in_channels')} channels and gives {config.get('out_channels')}: "
            "one that predicts a variance or takes more than the image is not supported"
        )
    if config.get("time_embedding_type", "positional") != "positional":
        raise UsageError(f"the teacher {folder} embeds time as {config['time_embedding_type']}, and not positional")
    return Foreign(checkpoint, schedule)


def read_schedule(path: Path) -> Schedule:
    """The schedule of a scheduler_config.json that is made of betas. Raises MissingError, CorruptError, UsageError."""
    if not path.is_file():
        raise MissingError(f"there is no {path}: a teacher needs the configuration of its scheduler")
    config = read_json(path)
    if not isinstance(config, dict):
        raise CorruptError(f"{path} is not the configuration of a scheduler")
    prediction = config.get("prediction_type") or "epsilon"  # the default of diffusers
    settings = {key: config[key] for key in BETA_KEYS if config.get(key) is not None}
    if not settings.keys() & {"beta_schedule", "trained_betas"}:
        raise UsageError(f"{path} has no betas: a teacher needs a variance-preserving schedule of betas")
    try:
        betas = import_diffusers().DDPMScheduler(**settings).betas.double()
        if len(betas) < 2 or not ((betas >= 0) & (betas <= 1)).all():
            raise ValueError("it needs at least two betas between 0 and 1")
    except Exception as error:  # diffusers and torch raise many types for settings that do not fit
        raise CorruptError(f"{path} is not a schedule of betas: {first_line(error)}") from None
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UsageError(f"{path} has prediction_type {prediction}: epsilon, v_prediction and sample are known")
    cumulative = torch.cumprod(1 - betas, 0)
    times = torch.atan2((1 - cumulative).sqrt(), cumulative.sqrt()) * (2 / torch.pi)
    if prediction == "epsilon":
        times = times[cumulative > 0]  # at α = 0 the noise says nothing of the image
    return Schedule(times, betas, cast("Prediction", prediction))


def check_fit(foreign: Foreign, data: ImageSet, conditional: bool) -> None:
    """Raises UsageError where the teacher's images or classes are not those of the data."""
    found, folder = foreign.checkpoint, foreign.checkpoint.folder
    if found.image_shape != data.image_shape:
        ours, theirs = ("x".join(map(str, shape)) for shape in (data.image_shape, found.image_shape))
        raise UsageError(
            f"the teacher {folder} makes images of {theirs} (channels, height, width) and {data.name} has {ours}: "
            "give --image-size or other data"
        )
    if conditional and found.classes is None:
        raise UsageError(f"the teacher {folder} knows no classes: leave conditional false")
    if not conditional and found.classes is not None:
        raise UsageError(f"the teacher {folder} is conditional on {found.classes} classes: give --set conditional=true")
    if conditional and data.classes is not None and found.classes != len(data.classes):
        raise UsageError(f"the teacher {folder} has {found.classes} classes and {data.name} has {len(data.classes)}")


def to_x(prediction: Prediction, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """x̂ of a network's output at z_t: x = (z - σ ε)/α, x = α z - σ v.  output, z: (N, C, H, W).  t: (N,)."""
    if prediction == "sample":
        return output
    alpha, sigma = (per_image(c) for c in alpha_sigma(t))
    return (z - sigma * output) / alpha if prediction == "epsilon" else alpha * z - sigma * output


def foreign_denoiser(unet: nn.Module, schedule: Schedule, label: Tensor | None = None) -> Denoiser:
    """x̂ = θ(z_t, t) of a foreign network on our schedule."""

    def predict(z: Tensor, t: Tensor) -> Tensor:
        index, own = schedule.locate(t)
        return to_x(schedule.prediction, unet(z, index, class_labels=label).sample, z, own)

    return predict
