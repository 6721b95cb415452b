"""External teachers: a diffusers UNet2DModel with a schedule of its own, predicting ε, v or x.

It is evaluated at the index of its schedule that has our logSNR, clamped to its range, and its output is converted to x̂
with its α and σ there. Equal logSNR means equal angle atan(σ/α), which is our t·π/2, so times are mapped to times and
the map stays finite where a schedule ends at ᾱ = 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from ..data import ImageSet
from ..dependencies import import_diffusers
from ..errors import CorruptError, MissingError, UsageError, first_line
from ..reading.documents import first_fault, read_object
from .checkpoint import SCHEDULER_KIND, Checkpoint, read_checkpoint
from .network import Denoiser
from .schedule import alpha_sigma, per_image

Prediction = Literal["epsilon", "v_prediction", "sample"]
Beta = Annotated[float, Field(ge=0, le=1)]


class BetaSettings(BaseModel, frozen=True, extra="ignore", strict=True):
    """What a scheduler's configuration says of its betas. None: as diffusers' default."""

    num_train_timesteps: int | None = Field(default=None, ge=2, le=65_536)
    beta_start: Beta | None = None
    beta_end: Beta | None = None
    beta_schedule: str | None = None
    trained_betas: Annotated[list[Beta], Field(max_length=65_536)] | None = None
    rescale_betas_zero_snr: bool | None = None


@dataclass(frozen=True)
class Schedule:
    """A schedule of betas.

    times: (K,) float64, increasing: our time with the SNR of each index 0 … K - 1.
    betas: (K,), or one more where ᾱ ends at 0 and the network predicts ε, which determines no x̂ there.
    """

    times: Tensor
    betas: Tensor
    prediction: Prediction

    def to(self, device: torch.device) -> Schedule:
        """The schedule with its times on this device, for times of ours that are there."""
        return replace(self, times=self.times.to(device))

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """For our times t (N,): the fractional index, and our time of that index; both clamped."""
        times = self.times.to(t.device)
        inside = t.double().clamp(times[0], times[-1])  # (N,)
        above = torch.searchsorted(times, inside).clamp(1, len(times) - 1)
        low, high = times[above - 1], times[above]
        index = above - 1 + (inside - low) / (high - low).clamp(min=1e-12)
        return index.to(t.dtype), inside.to(t.dtype)


@dataclass(frozen=True)
class Foreign:
    """A verified external teacher."""

    checkpoint: Checkpoint
    schedule: Schedule


def read_foreign(folder: Path) -> Foreign:
    """A teacher from a folder or the Hugging Face Hub, as `read_checkpoint` finds it, with its scheduler.

    Raises MissingError, CorruptError, and UsageError for a network or a schedule that cannot be a teacher.
    """
    checkpoint = read_checkpoint(folder)
    schedule = read_schedule(checkpoint.scheduler)
    config = checkpoint.config
    if config.get("in_channels") != config.get("out_channels"):
        raise UsageError(
            f"the teacher {folder} takes {config.get('in_channels')} channels and gives {config.get('out_channels')}: "
            "teachers that predict a variance or take more than the image are not supported"
        )
    if config.get("time_embedding_type", "positional") != "positional":
        raise UsageError(
            f"the teacher {folder} has time_embedding_type {config['time_embedding_type']}: it must be positional"
        )
    return Foreign(checkpoint, schedule)


def read_schedule(path: Path) -> Schedule:
    """The schedule of betas in a scheduler_config.json. Raises MissingError, CorruptError, UsageError."""
    if not os.path.isfile(path):
        raise MissingError(f"there is no {path}: a foreign network needs the configuration of its scheduler")
    config = read_object(path, SCHEDULER_KIND)
    prediction = config.get("prediction_type") or "epsilon"  # the default of diffusers
    if not any(config.get(key) is not None for key in ("beta_schedule", "trained_betas")):
        raise UsageError(f"{path} has no betas: a foreign network needs a variance-preserving schedule of betas")
    betas = _betas(config, path)
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UsageError(
            f"{path} has prediction_type {prediction}: choose a teacher with epsilon, v_prediction or sample"
        )
    cumulative = torch.cumprod(1 - betas, 0)
    times = torch.atan2((1 - cumulative).sqrt(), cumulative.sqrt()) * (2 / torch.pi)
    if prediction == "epsilon":
        times = times[cumulative > 0]  # at α = 0 the noise does not determine the image
    if len(times) < 2 or not (times.diff() >= 0).all():
        raise CorruptError(f"{path} is not a schedule of betas: it needs at least two times, in order")
    return Schedule(times, betas, cast("Prediction", prediction))


def _betas(config: dict[str, Any], path: Path) -> Tensor:
    """The betas (K,) float64 that diffusers makes of a scheduler's configuration."""
    try:
        settings = BetaSettings.model_validate(config).model_dump(exclude_none=True)
    except ValidationError as error:
        raise CorruptError(f"{path} is not a schedule of betas: {first_fault(error)}") from None
    try:
        betas: Tensor = import_diffusers().DDPMScheduler(**settings).betas.double()
    except Exception as error:  # diffusers alone runs here, and raises many types for a wrong configuration
        raise CorruptError(f"{path} is not a schedule of betas: {first_line(error)}") from None
    if len(betas) < 2 or not ((betas >= 0) & (betas <= 1)).all():
        raise CorruptError(f"{path} is not a schedule of betas: it needs at least two between 0 and 1")
    return betas


def check_fit(given: Checkpoint, role: str, data: ImageSet, conditional: bool) -> None:
    """Raises UsageError where the images or classes of a teacher or student are not those of the data."""
    folder = given.folder
    if given.image_shape != data.image_shape:
        ours, theirs = ("x".join(map(str, shape)) for shape in (data.image_shape, given.image_shape))
        raise UsageError(
            f"the {role} {folder} makes images of {theirs} (channels, height, width) and {data.name} has {ours}: "
            "give --image-size or other data"
        )
    if conditional and given.classes is None:
        raise UsageError(f"the {role} {folder} is not class-conditional: leave conditional false")
    if not conditional and given.classes is not None:
        raise UsageError(f"the {role} {folder} is conditional on {given.classes} classes: give --set conditional=true")
    if conditional and data.classes is not None and given.classes != len(data.classes):
        raise UsageError(f"the {role} {folder} has {given.classes} classes and {data.name} has {len(data.classes)}")


def to_x(prediction: Prediction, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """x̂ of a network's output at z_t: x = (z - σ ε)/α, x = α z - σ v.  output, z: (N, C, H, W).  t: (N,)."""
    if prediction == "sample":
        return output
    alpha, sigma = (per_image(c) for c in alpha_sigma(t))
    return (z - sigma * output) / alpha if prediction == "epsilon" else alpha * z - sigma * output


def foreign_denoiser(
    unet: nn.Module,
    schedule: Schedule,
    label: Tensor | None = None,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Denoiser:
    """x̂ = θ(z_t, t) of an external network on our schedule.

    precision: context of the forward pass alone, such as an autocast.
    """

    def predict(z: Tensor, t: Tensor) -> Tensor:
        index, own = schedule.locate(t)
        with precision():
            output = unet(z, index, class_labels=label).sample
        return to_x(schedule.prediction, output.to(z.dtype), z, own)

    return predict
