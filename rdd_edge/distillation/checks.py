"""Checks before any training of what would otherwise fail only hours later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..data import ImageSet
from ..diffusion.checkpoint import Checkpoint, read_checkpoint
from ..diffusion.external_teacher import check_fit, read_foreign
from ..diffusion.network import build_unet, denoiser
from ..diffusion.subsequence import even_subsequence, noise_times
from ..distributed import current
from ..errors import DataError, UsageError, first_line
from ..metrics.networks import Classifier, ExtractorConfig
from .config import ClassifierTraining, Preset, Refining, Sfddm, Training
from .losses.lpips import load_lpips
from .rotations import classifier_classes
from .run_folder import stage_names

FEWEST_IMAGES = 4  # for a held-out part beside a training part, and two halves with a covariance each in evaluation


def check(preset: Preset, data: ImageSet) -> Checkpoint | None:
    """Check labels, φ, LPIPS, the queue, the networks' fit to the images, and a given teacher or student.

    Returns the given one.

    Raises UsageError, DataError, and what `load_lpips` and `read_foreign` raise.
    """
    classes = len(data.require_labels()[1]) if preset.conditional else None
    if len(data.images) < FEWEST_IMAGES:
        raise DataError(f"the data set {data.name} has {len(data.images)} images: give at least {FEWEST_IMAGES}")
    if preset.extractor_from is not None and "extractor" not in stage_names(preset):
        raise UsageError("--extractor-from has no effect: neither this method nor another stage uses an extractor")
    if preset.sfddm:
        student_times(preset, preset.sfddm)
    if uses_lpips(preset):
        load_lpips(preset.lpips, data.image_shape[0])
    memory = preset.memory
    if preset.sfddm is None and preset.losses.m_p2p and memory.draw > memory.capacity:
        raise UsageError(
            f"memory.draw is {memory.draw} and memory.capacity {memory.capacity}: the queue would never hold as many "
            "pixels as M_P2P draws"
        )
    _check_networks(preset, data.image_shape, classes, classifier_classes(data))
    given = None
    if preset.student_folder is not None:
        given = read_checkpoint(Path(preset.student_folder))
        given.require_one_step()
    elif preset.teacher_folder is not None:
        given = read_foreign(Path(preset.teacher_folder)).checkpoint
    if given is not None:
        check_fit(given, "student" if preset.student_folder else "teacher", data, preset.conditional)
    return given


def check_batches(preset: Preset) -> None:
    """Raise UsageError if a batch is too small to give each rank a row."""
    for name, value in preset:
        if isinstance(value, Refining):
            name, value = f"{name}.training", value.training
        if isinstance(value, ClassifierTraining | Training):
            current().require(f"{name}.batch", value.batch)


def student_times(preset: Preset, sfddm: Sfddm) -> tuple[float, ...]:
    """Our noise time at each step of SFDDM's student. Raises UsageError for an invalid φ."""
    phi = sfddm.subsequence or even_subsequence(sfddm.steps, preset.first_steps)
    return noise_times(phi, preset.first_steps)


def uses_lpips(preset: Preset) -> bool:
    return preset.sfddm is None and preset.losses.lpips > 0


def _check_networks(preset: Preset, shape: tuple[int, int, int], classes: int | None, judged: int) -> None:
    """Pass one image through each network that the run will make, on the meta device, which computes only shapes."""
    label = torch.zeros(1, dtype=torch.int64, device="meta") if preset.conditional else None
    for name in ("student",) if preset.teacher_folder or preset.student_folder else ("network", "student"):
        if (network := getattr(preset, name)) is None:
            continue
        halvings = len(network.channels) - 1
        if any(side % 2**halvings for side in shape[1:]):
            raise UsageError(
                f"{name} halves images {halvings} times, and {shape[1]} x {shape[2]} pixels are not multiples of "
                f"{2**halvings}: use a different --image-size or {name}.channels"
            )
        with _building(name, shape):
            unet = build_unet(network.unet(shape, classes), 0)
            denoiser(unet, label)(torch.zeros(1, *shape), torch.zeros(1))
    for name in ("judge",) if preset.extractor_from else ("extractor", "judge"):
        if (extractor := getattr(preset, name)) is not None:
            with _building(name, shape):
                Classifier(ExtractorConfig(**extractor.model_dump(), image_shape=shape, classes=judged))


@contextmanager
def _building(name: str, shape: tuple[int, int, int]) -> Iterator[None]:
    try:
        with torch.device("meta"), torch.no_grad():
            yield
    except (RuntimeError, ValueError) as error:
        text = "x".join(map(str, shape))
        raise UsageError(
            f"{name} cannot be built for images of {text} (channels, height, width): {first_line(error)}"
        ) from None
