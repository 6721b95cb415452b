"""ResNets and DenseNets that classify ImageNet, with the weights that torchvision publishes for them.

The networks are sequences of layers as in `classifiers`; torchvision itself is not needed. Their stem has a stride of 4
and what follows one of 8, so that the last map has a 32nd of the image's side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONSTANTS = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}  # of ImageNet's pixels in [0, 1]


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


STEM = {"conv1": 1, "bn1": 2, "features.conv0": 1, "features.norm0": 2}  # torchvision's names, by index of the layer
STEM_LAYERS = 5
TRANSITION_LAYERS = 4  # between a DenseNet's blocks: norm, ReLU, convolution, pooling


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


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names that torchvision uses today: its files of DenseNets have norm.1 for norm1, and so on."""
    return {re.sub(r"(\.denselayer\d{1,4}\.(?:norm|conv))\.([12])\.", r"\1\2.", name): t for name, t in tensors.items()}


def shape_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The fields of an ExtractorConfig by the names and shapes of torchvision's tensors; None for other networks."""
    sizes = {name: len(tensor) for name, tensor in tensors.items() if tensor.ndim in (2, 4)}
    fields: dict[str, Any] = {"imagenet": True}
    if {"conv1.weight", "fc.weight"} <= sizes.keys():
        depths = _counts(tensors, r"layer(\d{1,4})\.\d{1,4}\.conv1\.weight")
        fields |= {"architecture": "resnet", "expansion": 4 if "layer1.0.conv3.weight" in tensors else 1}
        stem, classes = sizes["conv1.weight"], sizes["fc.weight"]
    elif {
        "features.conv0.weight",
        "features.denseblock1.denselayer1.conv2.weight",
        "classifier.weight",
    } <= sizes.keys():
        depths = _counts(tensors, r"features\.denseblock(\d{1,4})\.denselayer\d{1,4}\.conv1\.weight")
        fields |= {"architecture": "densenet", "growth": sizes["features.denseblock1.denselayer1.conv2.weight"]}
        stem, classes = sizes["features.conv0.weight"], sizes["classifier.weight"]
    else:
        return None
    return {**fields, "widths": depths, "stem": stem, "classes": classes}


def _counts(tensors: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """How many layers each block has."""
    levels = [int(match[1]) for name in tensors if (match := re.fullmatch(pattern, name))]
    return tuple(levels.count(level) for level in range(1, 1 + len(set(levels))))


def renamed(tensors: Mapping[str, Tensor], depths: tuple[int, ...]) -> dict[str, Tensor]:
    """torchvision's tensors by the names of `classifiers.Classifier`; a name that is not known stays."""
    constants = {f"features.0.{name}": value for name, value in Normalize().state_dict().items()}
    return constants | {_renamed(name, depths): tensor for name, tensor in tensors.items()}


def _renamed(name: str, depths: tuple[int, ...]) -> str:
    owner, _, kind = name.rpartition(".")
    if owner in ("fc", "classifier"):
        return f"head.{kind}"
    if owner in STEM:
        return f"features.{STEM[owner]}.{kind}"
    if match := re.fullmatch(r"layer(\d{1,4})\.(\d{1,4})\.(.+)", name):
        return f"features.{STEM_LAYERS + sum(depths[: int(match[1]) - 1]) + int(match[2])}.{match[3]}"
    if match := re.fullmatch(r"features\.denseblock(\d{1,4})\.denselayer(\d{1,4})\.(.+)", name):
        return f"features.{_dense_block(depths, int(match[1])) + int(match[2]) - 1}.{match[3]}"
    # What lies between two dense blocks, or follows the last one, begins where its block ends.
    if match := re.fullmatch(r"features\.transition(\d{1,4})\.(norm|conv)\.(.+)", name):
        end = _dense_block(depths, int(match[1]) + 1) - TRANSITION_LAYERS
        return f"features.{end + (0 if match[2] == 'norm' else 2)}.{match[3]}"
    if owner == "features.norm5":
        return f"features.{_dense_block(depths, len(depths) + 1) - TRANSITION_LAYERS}.{kind}"
    return name


def _dense_block(depths: tuple[int, ...], number: int) -> int:
    """The first layer of a DenseNet's block, counted from 1; or where the next one would begin."""
    return STEM_LAYERS + sum(depths[: number - 1]) + TRANSITION_LAYERS * (number - 1)
