"""The record of a conversion, from the output of a network that predicts ε, v or x to the image; without PyTorch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schema import Frozen


class Conversion(Frozen):
    """How a foreign student's output becomes the image; the artifact contains it.

    The image is the output for prediction sample, (z - sigma · output)/alpha for epsilon, and
    alpha · z - sigma · output for v_prediction, clipped to [-1, 1].
    """

    prediction: Literal["epsilon", "v_prediction", "sample"]
    timestep: int = Field(ge=0, le=1_000_000)  # of its own schedule, at which the network is evaluated
    alpha: Annotated[float, Field(ge=0, le=1)]  # of that timestep
    sigma: Annotated[float, Field(ge=0, le=1)]
