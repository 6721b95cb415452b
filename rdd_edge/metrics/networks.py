"""Classifiers whose feature maps the losses and the metrics compare.

Every network maps images in [-1, 1] (N, C, H, W) to its last feature map F (N, C', h, w), after batch norm and ReLU.
Those of ImageNet are sequences of layers, for the weights that torchvision publishes; torchvision itself is not needed.
Their stem has a stride of 4 and what follows one of 8, so that the last map has a 32nd of the image's side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..schema import Frozen, Side

CONSTANTS = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}  # of ImageNet's pixels in [0, 1]
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


class Normalize(nn.Module):
    """Images (N, 3 or 1, H, W) in [-1, 1] as ImageNet's classifiers expect them; gray ones become three equal planes.

    stored: whether the constants are part of the state_dict.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, stored: bool = True) -> None:
        super().__init__()
        for name, values in CONSTANTS.items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=stored)

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 1) / 2 - self.mean) / self.deviation


def stem(width: int) -> list[nn.Module]:
    """The layers before the blocks."""
    convolution = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    return [Normalize(), convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or one between two 1x1 (expansion 4), as in He et al. 2016 with torchvision's strides."""

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        out = width * expansion
        if expansion == 1:
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.expansion = expansion
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.expansion != 1:
            inner = self.bn3(self.conv3(F.relu(inner)))
        return F.relu(inner + self.downsample(x))


def residual_blocks(depths: tuple[int, ...], width: int, expansion: int) -> Iterator[nn.Module]:
    """The blocks of a ResNet, after its stem of `width` channels."""
    channels = width
    for level, depth in enumerate(depths):
        for index in range(depth):
            inner = width * 2**level
            yield ResidualBlock(channels, inner, 2 if level and not index else 1, expansion)
            channels = inner * expansion


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
    layers: list[nn.Module] = stem(channels) if config.imagenet else [small]
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
    blocks = residual_blocks(config.widths, config.stem, config.expansion)
    return Features(*stem(config.stem), *blocks)


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
