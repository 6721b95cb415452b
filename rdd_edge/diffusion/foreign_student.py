"""One-step students of other tools: a diffusers UNet2DModel that predicts ε, v or x on a schedule of its own.

Such a student is evaluated once, on noise of unit variance, at one timestep of its schedule. Its output is converted to
the image with α and σ at that timestep, as diffusers' schedulers compute `pred_original_sample`.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from ..console import reporter
from ..errors import UsageError
from ..reading.documents import read_json
from .checkpoint import Checkpoint
from .conversion import Conversion
from .external_teacher import Prediction, read_schedule

PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}


class ForeignStudent(nn.Module):
    """A foreign student in the place of one of ours: `one_step` evaluates it at its own timestep and gets x̂."""

    def __init__(self, unet: nn.Module, conversion: Conversion) -> None:
        super().__init__()
        self.unet, self.conversion = unet, conversion

    @property
    def class_embedding(self) -> object:
        return getattr(self.unet, "class_embedding", None)

    def forward(self, z: Tensor, timestep: object, class_labels: Tensor | None = None) -> Any:
        """An object with `sample`, x̂ (N, C, H, W), as of a UNet2DModel.  timestep: that of our students, not used."""
        c = self.conversion
        output = self.unet(z, c.timestep, class_labels=class_labels).sample
        if c.prediction == "epsilon":
            output = (z - c.sigma * output) / c.alpha
        elif c.prediction == "v_prediction":
            output = c.alpha * z - c.sigma * output
        return SimpleNamespace(sample=output)


def one_step_student(found: Checkpoint, prediction: str | None, timestep: int | None) -> Checkpoint:
    """A checkpoint that is a one-step student: by its card, or because the caller says what it predicts.

    prediction: epsilon, v or sample, for a checkpoint without a card.  timestep: at which it is evaluated; by default
    the last of its schedule.
    Raises UsageError where neither says so or both do, and for a timestep that determines no image; MissingError or
    CorruptError for the configuration of the scheduler.
    """
    if timestep is not None and prediction is None:
        raise UsageError(f"--timestep {timestep} needs --prediction: say what the network predicts there")
    if found.card is not None:
        found.require_one_step()
        if prediction is not None:
            raise UsageError(f"{found.folder} is a student of rdd-edge, which predicts the image: omit --prediction")
        return found
    if prediction is None:
        raise UsageError(
            f"{found.folder} has no card that calls it a one-step student: distil it with rdd-edge distill --teacher, "
            "and give the run; or, if one step is all that it needs, add --prediction epsilon, v or sample"
        )
    if prediction not in PREDICTIONS:
        raise UsageError(f"--prediction {prediction} is not valid: choose from {', '.join(PREDICTIONS)}")
    return replace(found, conversion=_conversion(found, PREDICTIONS[prediction], timestep))


def _conversion(found: Checkpoint, prediction: Prediction, timestep: int | None) -> Conversion:
    config, schedule = found.config, read_schedule(found.scheduler)
    if config.get("in_channels") != config.get("out_channels"):
        raise UsageError(
            f"{found.folder} takes {config.get('in_channels')} channels and gives {config.get('out_channels')}: a "
            "one-step student must predict as many as it takes"
        )
    if read_json(found.scheduler).get("thresholding"):
        raise UsageError(f"{found.scheduler} asks for thresholding, which depends on the image: set it to false")
    index = len(schedule.betas) - 1 if timestep is None else timestep
    if not 0 <= index < len(schedule.betas):
        raise UsageError(f"--timestep {index} is not in the schedule of {found.folder}: 0 … {len(schedule.betas) - 1}")
    cumulative = float((1 - schedule.betas[: index + 1]).prod())
    if prediction == "epsilon" and cumulative == 0:
        raise UsageError(
            f"--timestep {index} of {found.folder} is pure noise, and there the predicted noise determines no image: "
            "give the timestep that the student was trained at"
        )
    if schedule.prediction != prediction:
        reporter().note(f"{found.scheduler} says {schedule.prediction}; exported as {prediction}, as given")
    return Conversion(prediction=prediction, timestep=index, alpha=cumulative**0.5, sigma=(1 - cumulative) ** 0.5)
