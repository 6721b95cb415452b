"""Samples of a checkpoint from portable noise, as the uint8 images that a device returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..console import reporter
from ..distributed import BLOCK, current
from ..errors import UsageError
from ..portable.noise import inputs, to_uint8
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_STEPS = 1000  # the indices of diffusers' schedules


def sampling_steps(checkpoint: Checkpoint, asked: int | None) -> int:
    """The number of sampling steps: `asked`, or else the number that the checkpoint was trained for.

    Raises UsageError for a number that no schedule has, or where the checkpoint gives none.
    """
    if asked is not None:
        if not 1 <= asked <= MOST_STEPS:
            raise UsageError(f"--steps {asked} is not valid: give 1 to {MOST_STEPS} sampling steps")
        times = checkpoint.card.noise_times if checkpoint.card else None
        if times is not None and asked != len(times):
            raise UsageError(f"{checkpoint.folder} is an SFDDM student of {len(times)} steps: leave --steps out")
        return asked
    if checkpoint.card is None or checkpoint.card.sampling_steps is None:
        raise UsageError(f"{checkpoint.folder} was not trained for a number of sampling steps: give --steps")
    return checkpoint.card.sampling_steps


def sample_images(
    checkpoint: Checkpoint, count: int, steps: int, seed: int, sampler: str | None = None, labels: Sequence[int] = ()
) -> NDArray[np.uint8]:
    """Samples 0 … count - 1 from the noise of `seed`, (count, H, W, C) uint8.

    sampler: one of SAMPLERS; None: the checkpoint's own.  labels: that the images of a conditional model take in turn;
    empty: all of its classes.  Under torchrun these are this rank's images alone, in whole blocks; there may be none.
    Raises UsageError for a count below 1.
    """
    import torch

    if count < 1:
        raise UsageError(f"--n {count} is not valid: give at least 1 image")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = _sampler(checkpoint, steps, checkpoint.load().to(device), sampler)
    channels, height, width = checkpoint.image_shape
    rows = current().blocks(count)
    reporter().begin(f"sampling {checkpoint.name}", len(rows), unit="images")
    images = np.empty((len(rows), height, width, channels), dtype=np.uint8)
    for start in range(rows.start, rows.stop, BLOCK):
        indices = range(start, min(start + BLOCK, rows.stop))
        noise, classes = inputs(seed, indices, checkpoint.image_shape, checkpoint.classes)
        if labels:
            classes = np.asarray([labels[i % len(labels)] for i in indices], dtype=np.int64)
        z, label = torch.from_numpy(noise).to(device), None if classes is None else torch.from_numpy(classes).to(device)
        images[start - rows.start : indices.stop - rows.start] = to_uint8(draw(z, label).cpu().numpy())
        reporter().advance(indices.stop - rows.start)
    reporter().end()
    return images


def _sampler(
    checkpoint: Checkpoint, steps: int, unet: nn.Module, name: str | None
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """x of (z_1, labels) by a sampler of diffusers, or by DDIM: on our schedule, or on ᾱ′ for an SFDDM student."""
    from .external_teacher import foreign_denoiser, read_schedule
    from .network import denoiser
    from .samplers import sample, training_free
    from .subsequence import sample_subsequence

    times = checkpoint.card.noise_times if checkpoint.card else None
    if name is not None:
        if times is not None:
            raise UsageError(
                f"{checkpoint.folder} is an SFDDM student, which has a sampler of its own: leave --sampler out"
            )
        schedule = read_schedule(checkpoint.scheduler)
        return training_free(name, steps, unet, schedule.betas, schedule.prediction)
    if checkpoint.card is None and checkpoint.scheduler.is_file():
        schedule = read_schedule(checkpoint.scheduler)
        return lambda z, label: sample(foreign_denoiser(unet, schedule, label), z, steps)
    if times is not None:
        return lambda z, label: sample_subsequence(denoiser(unet, label), z, times)
    return lambda z, label: sample(denoiser(unet, label), z, steps)
