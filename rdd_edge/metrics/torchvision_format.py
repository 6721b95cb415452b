"""The names and shapes of the weights that torchvision publishes for ResNets and DenseNets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .networks import Normalize

STEM = {"conv1": 1, "bn1": 2, "features.conv0": 1, "features.norm0": 2}  # torchvision's names, by index of the layer
STEM_LAYERS = 5
TRANSITION_LAYERS = 4  # between a DenseNet's blocks: norm, ReLU, convolution, pooling


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
