"""Samples of a checkpoint from portable noise, in any number of DDIM steps, as the uint8 a device would deliver."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..console import reporter
from ..distributed import BLOCK, current
from ..errors import UsageError
from ..portable.noise import labels, normals, to_uint8
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["sample_images", "sampling_steps"]


def sampling_steps(checkpoint: Checkpoint, asked: int | None) -> int:
    """The number of steps to sample in: what was asked, or what the checkpoint was trained for.

    Raises UsageError for fewer than one, or where nothing says how many.
    """
    if asked is not None:
        if asked < 1:
            raise UsageError(f"--steps {asked} is not a number of sampling steps: give at least 1")
        times = checkpoint.card.noise_times if checkpoint.card else None
        if times is not None and asked != len(times):
            raise UsageError(f"{checkpoint.folder} is SFDDM's student of {len(times)} steps: it has no other --steps")
        return asked
    if checkpoint.card is None or checkpoint.card.sampling_steps is None:
        raise UsageError(f"{checkpoint.folder} was not trained for a number of sampling steps: give --steps")
    return checkpoint.card.sampling_steps


def sample_images(
    checkpoint: Checkpoint,
    count: int,
    steps: int,
    seed: int,
    sampler: str | None = None,
) -> NDArray[np.uint8]:
    """Samples 0 … count - 1 of the noise of `seed`, (count, H, W, C) uint8.

    sampler: a training-free one of diffusers; None: the checkpoint's own.
    Under torchrun these are only this process's images, in whole blocks; there may be none.

    The label of a conditional model is the index modulo its classes. Raises UsageError for a count below 1.
    """
    import torch

    if count < 1:
        raise UsageError(f"--n {count} is not a number of images: give at least 1")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = _sampler(checkpoint, steps, checkpoint.load().to(device), sampler)
    channels, height, width = checkpoint.image_shape
    rows = current().blocks(count)
    reporter().begin(f"sampling {checkpoint.folder.name}", len(rows), unit="images")
    images = np.empty((len(rows), height, width, channels), dtype=np.uint8)
    for start in range(rows.start, rows.stop, BLOCK):
        indices = range(start, min(start + BLOCK, rows.stop))
        z = torch.from_numpy(normals(seed, indices, checkpoint.image_shape)).to(device)
        classes = checkpoint.classes
        label = None if classes is None else torch.from_numpy(labels(indices, classes)).to(device)
        images[start - rows.start : indices.stop - rows.start] = to_uint8(draw(z, label).cpu().numpy())
        reporter().advance(indices.stop - rows.start)
    reporter().end()
    return images


def _sampler(
    checkpoint: Checkpoint, steps: int, unet: nn.Module, name: str | None
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """x of (z_1, labels) by DDIM: on our schedule, on ᾱ′ for SFDDM's student; a foreign network is asked on its own."""
    from .external_teacher import foreign_denoiser, read_schedule
    from .network import denoiser
    from .samplers import sample, training_free
    from .subsequence import sample_subsequence

    times = checkpoint.card.noise_times if checkpoint.card else None
    if name is not None:
        if times is not None:
            raise UsageError(f"{checkpoint.folder} is SFDDM's student, with a sampler of its own: leave --sampler out")
        schedule = read_schedule(checkpoint.scheduler)
        return training_free(name, steps, unet, schedule.betas, schedule.prediction)
    if checkpoint.card is None and checkpoint.scheduler.is_file():
        schedule = read_schedule(checkpoint.scheduler)
        return lambda z, label: sample(foreign_denoiser(unet, schedule, label), z, steps)
    if times is not None:
        return lambda z, label: sample_subsequence(denoiser(unet, label), z, times)
    return lambda z, label: sample(denoiser(unet, label), z, steps)
