"""Classifiers whose feature maps the losses and the metrics compare.

A checkpoint is a folder: config.json (an ExtractorConfig) and model.safetensors. Every network maps images in [-1, 1]
(N, C, H, W) to its last feature map F (N, C', h, w), after batch norm and ReLU.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CorruptError, MissingError
from ..files import new_folder, sha256_of, write_model
from ..reading.documents import read_model
from ..reading.tensors import read_tensors, require_fit
from ..schema import Frozen, Sha256, Side

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "rdd_edge.json"
MOST_LAYERS = 1024


class ExtractorConfig(Frozen):
    """The shape of a classifier. `widths`: layers of each block of a densenet, channels of each level of a cnn."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")  # gives fd_<name>
    architecture: Literal["densenet", "cnn"]
    widths: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(min_length=1, max_length=64)
    growth: int = Field(default=12, ge=1, le=1024)  # densenet only
    stem: int = Field(default=24, ge=1, le=8192)  # densenet only: channels of the first convolution
    image_shape: tuple[Side, Side, Side]  # (C, H, W)
    classes: int = Field(ge=2, le=65_536)

    @model_validator(mode="after")
    def _check(self) -> ExtractorConfig:
        if self.architecture == "densenet" and sum(self.widths) > MOST_LAYERS:
            raise ValueError(f"a densenet of {sum(self.widths)} layers: at most {MOST_LAYERS} are built")
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
    """A stem for CIFAR (3x3, stride 1, no pooling) and dense blocks; transitions between them halve width and size."""
    layers: list[nn.Module] = [nn.Conv2d(config.image_shape[0], config.stem, 3, padding=1, bias=False)]
    channels = config.stem
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


def build_features(config: ExtractorConfig) -> Features:
    return {"densenet": _densenet, "cnn": _cnn}[config.architecture](config)


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


def write_card(folder: Path) -> None:
    """Write the card of the extractor in `folder`."""
    config, weights = extractor_sha256(folder).values()
    write_model(folder / CARD, ExtractorCard(config_sha256=config, weights_sha256=weights))


def extractor_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of the two files of an extractor, by name. Raises MissingError."""
    return {name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS)}


def load_feature_network(folder: Path) -> tuple[str, nn.Module]:
    """Name and feature network of an extractor checkpoint, frozen and in eval mode.

    Raises MissingError or CorruptError.
    """
    if not os.path.isfile(folder / WEIGHTS):
        raise MissingError(f"{folder} is not an extractor: it has no {WEIGHTS}")
    config = read_model(folder / CONFIG, ExtractorConfig)
    if os.path.isfile(folder / CARD):
        card, found = read_model(folder / CARD, ExtractorCard), extractor_sha256(folder)
        if list(found.values()) != [card.config_sha256, card.weights_sha256]:
            raise CorruptError(
                f"{folder} is not the extractor that its {CARD} describes: the SHA-256 of a file differs"
            )
    with torch.device("meta"):  # the shapes alone, before memory is allocated for what the configuration asks
        classifier = Classifier(config)
    tensors = read_tensors(folder / WEIGHTS)
    require_fit(classifier.state_dict(), tensors, folder / WEIGHTS)
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    classifier.load_state_dict(full, assign=True)
    return config.name, classifier.features.eval().requires_grad_(False)
