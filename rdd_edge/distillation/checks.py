"""Checks before any training of what would otherwise fail only hours later."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data import ImageSet
from ..diffusion.external_teacher import Foreign, check_fit, read_foreign
from ..diffusion.network import build_unet, denoiser
from ..diffusion.subsequence import even_subsequence, noise_times
from ..distributed import current
from ..errors import DataError, UsageError, first_line
from ..metrics.classifiers import Classifier, ExtractorConfig
from .config import Extractor, Network, Preset, Sfddm
from .losses.lpips import load_lpips

__all__ = ["check", "check_batches", "student_times", "uses_lpips"]

FEWEST_IMAGES = 4  # for a held-out part beside a training part, and two halves with a covariance each in evaluation


def check(preset: Preset, data: ImageSet) -> Foreign | None:
    """Check labels, φ, LPIPS, the queue, the networks' fit to the images, and a foreign teacher, which is returned.

    Raises UsageError, DataError, and what `load_lpips` and `read_foreign` raise.
    """
    _, classes = data.require_labels()
    if len(classes) < 2:
        raise DataError(
            f"the data set {data.name} has one class: a classifier needs two, such as two folders of images"
        )
    if len(data.images) < FEWEST_IMAGES:
        raise DataError(f"the data set {data.name} has {len(data.images)} images: give at least {FEWEST_IMAGES}")
    if preset.sfddm:
        student_times(preset, preset.sfddm)
    if uses_lpips(preset):
        load_lpips(preset.lpips, data.image_shape[0])
    _check_queue(preset)
    _check_networks(preset, data.image_shape, len(classes))
    if preset.teacher_folder is None:
        return None
    foreign = read_foreign(Path(preset.teacher_folder))
    check_fit(foreign, data, preset.conditional)
    return foreign


def check_batches(preset: Preset) -> None:
    """Raise UsageError if a batch is too small to give each rank a row."""
    stages = ("extractor_training", "judge_training", "teacher", "conversion", "student_training", "pd", "distillation")
    for stage in stages:
        if (training := getattr(preset, stage)) is not None:
            current().require(f"{stage}.batch", training.batch)


def student_times(preset: Preset, sfddm: Sfddm) -> tuple[float, ...]:
    """Our noise time at each step of SFDDM's student. Raises UsageError for an invalid φ."""
    phi = sfddm.subsequence or even_subsequence(sfddm.steps, preset.first_steps)
    return noise_times(phi, preset.first_steps)


def uses_lpips(preset: Preset) -> bool:
    return preset.sfddm is None and preset.losses.lpips > 0


def _check_queue(preset: Preset) -> None:
    memory = preset.memory
    if preset.sfddm is None and preset.losses.m_p2p and memory.draw > memory.capacity:
        raise UsageError(
            f"memory.draw is {memory.draw} and memory.capacity {memory.capacity}: the queue would never hold as many "
            "pixels as M_P2P draws"
        )


def _check_networks(preset: Preset, shape: tuple[int, int, int], classes: int) -> None:
    """Pass one image through each network that the run will make, on the meta device, which computes only shapes."""
    networks = {"network": None if preset.teacher_folder else preset.network, "student": preset.student}
    for name, network in networks.items():
        if network is not None:
            _check_unet(name, network, shape, classes if preset.conditional else None)
    for name, extractor in {"extractor": preset.extractor, "judge": preset.judge}.items():
        if extractor is not None:
            _check_classifier(name, extractor, shape, classes)


def _check_unet(name: str, network: Network, shape: tuple[int, int, int], classes: int | None) -> None:
    factor = 2 ** (len(network.channels) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise UsageError(
            f"{name} halves images {len(network.channels) - 1} times, and {shape[1]} x {shape[2]} pixels are not "
            f"multiples of {factor}: use a different --image-size or {name}.channels"
        )
    label = None if classes is None else torch.zeros(1, dtype=torch.int64, device="meta")
    try:
        with torch.device("meta"), torch.no_grad():
            denoiser(build_unet(network.unet(shape, classes), 0), label)(torch.zeros(1, *shape), torch.zeros(1))
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{name} cannot be built for images of {_shape_text(shape)}: {first_line(error)}") from None


def _check_classifier(name: str, extractor: Extractor, shape: tuple[int, int, int], classes: int) -> None:
    try:
        with torch.device("meta"):
            Classifier(ExtractorConfig(**extractor.model_dump(), image_shape=shape, classes=classes))
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{name} cannot take images of {_shape_text(shape)}: {first_line(error)}") from None


def _shape_text(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape)) + " (channels, height, width)"
