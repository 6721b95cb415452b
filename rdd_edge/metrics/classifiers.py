"""Extractors: folders with the config.json (an ExtractorConfig) and the weights of a classifier, and their hashes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CorruptError, MissingError, UsageError
from ..files import new_folder, require_hashes, sha256_of, write_model
from ..reading.documents import first_fault, read_model
from ..reading.tensors import read_tensors, read_weights, require_fit
from ..schema import Frozen, Sha256
from . import torchvision_format
from .networks import Classifier, ExtractorConfig

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "rdd_edge.json"


class ExtractorCard(Frozen):
    """rdd_edge.json of an extractor: the hashes that verify it."""

    schema_version: Literal[1] = 1
    config_sha256: Sha256
    weights_sha256: Sha256


def save_classifier(path: Path, classifier: Classifier) -> None:
    with new_folder(path) as folder:
        write_model(folder / "config.json", classifier.config)
        save_file({k: v.contiguous() for k, v in classifier.state_dict().items()}, folder / WEIGHTS)
        write_card(folder)


def copy_classifier(source: Path, path: Path, image_shape: tuple[int, int, int]) -> None:
    """Make the extractor folder `path` from one of ours, or from a file of torchvision's weights.

    source: folder, or .pth or .safetensors file of a ResNet or DenseNet.
    image_shape: (C, H, W) of the images that it is to take.
    Raises MissingError, CorruptError, and UsageError for another shape.
    """
    if not os.path.exists(source):
        raise MissingError(f"there is no extractor {source}")
    if source.is_dir():
        classifier = load_classifier(source)
        if classifier.config.image_shape != image_shape:
            own, data = ("x".join(map(str, shape)) for shape in (classifier.config.image_shape, image_shape))
            raise UsageError(
                f"the extractor {source} is for images of {own}, and the data are {data}: use --image-size"
            )
    else:
        classifier = _from_torchvision(source, image_shape)
    save_classifier(path, classifier)


def _from_torchvision(path: Path, image_shape: tuple[int, int, int]) -> Classifier:
    named = read_weights(path)
    if not all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in named.items()):
        raise CorruptError(f"{path} is not a file of tensors by name")
    named = torchvision_format.current_names(named)
    shape = torchvision_format.shape_of(named)
    name = re.sub("[^a-z0-9]+", "_", path.stem.lower()).strip("_") or "extractor"
    try:
        if shape is None:
            raise ValueError("it lacks conv1.weight and fc.weight, or features.conv0.weight and classifier.weight")
        config = ExtractorConfig(name=name, image_shape=image_shape, **shape)
    except ValueError as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else error
        raise CorruptError(f"{path} is no ResNet or DenseNet in torchvision's format: {reason}") from None
    try:
        classifier = _empty(config)
    except RuntimeError:
        side = min(image_shape[1:])
        raise UsageError(f"{path} halves images five times, and those of {side} pixels are too small for it") from None
    return _filled(classifier, torchvision_format.renamed(named, config.widths), path)


def write_card(folder: Path) -> None:
    """Write the card of the extractor in `folder`."""
    config, weights = extractor_sha256(folder).values()
    write_model(folder / CARD, ExtractorCard(config_sha256=config, weights_sha256=weights))


def extractor_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of the two files of an extractor, by name. Raises MissingError."""
    return {name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS)}


def load_classifier(folder: Path) -> Classifier:
    """The classifier of an extractor checkpoint, frozen and in eval mode. Raises MissingError or CorruptError."""
    if not os.path.isfile(folder / WEIGHTS):
        raise MissingError(f"{folder} is not an extractor: it has no {WEIGHTS}")
    config = read_model(folder / CONFIG, ExtractorConfig)
    if os.path.isfile(folder / CARD):
        card = read_model(folder / CARD, ExtractorCard)
        require_hashes({folder / CONFIG: card.config_sha256, folder / WEIGHTS: card.weights_sha256}, folder / CARD)
    return _filled(_empty(config), read_tensors(folder / WEIGHTS), folder / WEIGHTS)


def load_feature_network(folder: Path) -> tuple[str, nn.Module]:
    """Name and feature network of an extractor checkpoint, frozen and in eval mode.

    Raises MissingError or CorruptError.
    """
    classifier = load_classifier(folder)
    return classifier.config.name, classifier.features


def _empty(config: ExtractorConfig) -> Classifier:
    """The shapes alone, before memory is allocated for what the configuration asks. RuntimeError for small images."""
    with torch.device("meta"):
        return Classifier(config)


def _filled(classifier: Classifier, tensors: dict[str, Tensor], where: Path) -> Classifier:
    """An empty classifier with these weights, in float32.  where: their file.

    Raises CorruptError where they do not fit.
    """
    require_fit(classifier.state_dict(), tensors, where)
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    # Old files lack the counters of batch norm, which nothing reads.
    full |= {name: torch.tensor(0) for name in classifier.state_dict() if name not in full}
    classifier.load_state_dict(full, assign=True)
    return classifier.eval().requires_grad_(False)
