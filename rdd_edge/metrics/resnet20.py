"""fd_resnet20: the features of a CIFAR-10 ResNet-20 that no loss here has seen.

The network is He et al. 2016, Section 4.2, with parameter-free shortcuts (option A). Its weights are akamaster's,
resnet20-12fca82f.th of pytorch_resnet_cifar10, trained on images normalised with ImageNet's mean and standard
deviation; the file is loaded only if its SHA-256 is the pinned one, so that one name means one metric.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CorruptError, MissingError
from ..files import sha256_of
from ..reading.tensors import load_into, read_weights
from .extractors import FeatureExtractor
from .networks import Normalize

FILE = "resnet20-12fca82f.th"
URL = f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{FILE}"
SHA256 = "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"


class _Block(nn.Module):
    """Two 3x3 convolutions; a shortcut to more channels drops every other pixel and adds channels of zeros."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if channels == width else 2
        self.pad = (width - channels) // 2  # on either side of the old channels
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, self.stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(inner + short)


class ResNet20(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] → the last feature map (N, 64, H/4, W/4), after ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize(stored=False)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(_Block(before, width), _Block(width, width), _Block(width, width))
            for before, width in ((16, 16), (16, 32), (32, 64))
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(self.normalize(x)))))))
        return features


def load_resnet20(path: Path, device: str = "cpu", sha256: str = SHA256) -> FeatureExtractor:
    """The extractor `resnet20` with the weights of a file. Raises MissingError, or CorruptError for another file."""
    if not os.path.isfile(path):
        raise MissingError(f"there is no {path}: fd_resnet20 needs {FILE}, from {URL}")
    actual = sha256_of(path)
    if actual != sha256:
        raise CorruptError(f"{path} is not {FILE}: its SHA-256 differs; take it from {URL}")
    state, network = read_weights(path).get("state_dict"), ResNet20()
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CorruptError(f"{path} is not {FILE}: it has no state_dict")
    tensors = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    load_into(network, {name: tensors[name] for name in tensors if not name.startswith("linear.")}, path)
    return FeatureExtractor("resnet20", network, actual, device)
