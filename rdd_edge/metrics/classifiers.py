"""Classifiers whose feature maps the losses and the metrics compare.

A checkpoint is a folder: config.json (an ExtractorConfig) and model.safetensors. Every network maps images in [-1, 1]
(N, C, H, W) to its last feature map F (N, C', h, w), after batch norm and ReLU.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CorruptError, MissingError, UsageError
from ..files import new_folder, sha256_of, write_model
from ..reading.documents import first_fault, read_model
from ..reading.tensors import read_tensors, read_weights, require_fit
from ..schema import Frozen, Sha256, Side
from . import torchvision_format

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "rdd_edge.json"
MOST_LAYERS = 1024


class ExtractorConfig(Frozen):
    """The shape of a classifier.

    `widths`: layers of each block of a densenet, channels of each level of a cnn, blocks of each level of a resnet.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")  # gives fd_<name>
    architecture: Literal["densenet", "cnn", "resnet"]
    widths: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(min_length=1, max_length=64)
    growth: int = Field(default=12, ge=1, le=1024)  # densenet only
    stem: int = Field(default=24, ge=1, le=8192)  # not of a cnn: channels of the first convolution
    expansion: Literal[1, 4] = 1  # resnet only: 4 for bottleneck blocks
    imagenet: bool = False  # stem and normalisation of torchvision's ImageNet classifiers
    image_shape: tuple[Side, Side, Side]  # (C, H, W)
    classes: int = Field(ge=2, le=65_536)

    @model_validator(mode="after")
    def _check(self) -> ExtractorConfig:
        if self.architecture != "cnn" and sum(self.widths) > MOST_LAYERS:
            raise ValueError(f"a {self.architecture} of {sum(self.widths)} layers: at most {MOST_LAYERS} are built")
        if self.imagenet is not (self.architecture == "resnet") and self.architecture != "densenet":
            raise ValueError(f"imagenet = {self.imagenet} does not fit a {self.architecture}")
        if self.imagenet and self.image_shape[0] not in (1, 3):
            raise ValueError(f"a classifier of ImageNet takes 1 or 3 channels, not {self.image_shape[0]}")
        return self


class ExtractorCard(Frozen):
    """rdd_edge.json of an extractor: the hashes that verify it."""

    schema_version: Literal[1] = 1
    config_sha256: Sha256
    weights_sha256: Sha256


class _DenseLayer(nn.Module):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3, its output concatenated to its input (Huang et al. 2017, DenseNet-BC)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


class Features(nn.Sequential):
    """A Sequential with a forward method of its own.

    torch.compile skips the code of torch.nn: in a plain Sequential it would compile each layer separately, and stop
    after eight of different widths.
    """

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


def _densenet(config: ExtractorConfig) -> Features:
    """A stem and dense blocks; transitions between them halve width and size.

    The stem is that for CIFAR (3x3, stride 1, no pooling), unless the weights are those of an ImageNet classifier.
    """
    channels = config.stem
    small = nn.Conv2d(config.image_shape[0], channels, 3, padding=1, bias=False)
    layers: list[nn.Module] = torchvision_format.stem(channels) if config.imagenet else [small]
    for block, depth in enumerate(config.widths):
        if block > 0:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False)]
            layers += [nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(depth):
            layers.append(_DenseLayer(channels, config.growth))
            channels += config.growth
    return Features(*layers, nn.BatchNorm2d(channels), nn.ReLU())


def _cnn(config: ExtractorConfig) -> Features:
    """Two 3x3 convolutions per level; from the second level on the first has stride 2."""
    layers: list[nn.Module] = []
    channels = config.image_shape[0]
    for level, width in enumerate(config.widths):
        for stride in (1 if level == 0 else 2, 1):
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return Features(*layers)


def _resnet(config: ExtractorConfig) -> Features:
    blocks = torchvision_format.residual_blocks(config.widths, config.stem, config.expansion)
    return Features(*torchvision_format.stem(config.stem), *blocks)


def build_features(config: ExtractorConfig) -> Features:
    return {"densenet": _densenet, "cnn": _cnn, "resnet": _resnet}[config.architecture](config)


class Classifier(nn.Module):
    """Features, their spatial mean and a linear layer."""

    def __init__(self, config: ExtractorConfig) -> None:
        super().__init__()
        self.config = config
        self.features = build_features(config)
        with torch.no_grad():
            self.map_shape = tuple(self.features.eval()(torch.zeros(1, *config.image_shape)).shape[1:])  # (C', h, w)
        self.features.train()
        self.head = nn.Linear(self.map_shape[0], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


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
        card, found = read_model(folder / CARD, ExtractorCard), extractor_sha256(folder)
        if list(found.values()) != [card.config_sha256, card.weights_sha256]:
            raise CorruptError(
                f"{folder} is not the extractor that its {CARD} describes: the SHA-256 of a file differs"
            )
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
