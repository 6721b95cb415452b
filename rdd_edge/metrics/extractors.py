"""Pooled features of images from a trained classifier, in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..distributed import BLOCK
from ..files import tree_sha256

if TYPE_CHECKING:
    from torch import nn


class Extractor(Protocol):
    """A network whose features a distance compares, for the metric `fd_<name>`."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str:
        """SHA-256 of its weights, the key of cached statistics."""
        ...

    @property
    def device(self) -> str:
        """cpu or cuda, on which features differ in their last digits."""
        ...

    def batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        """Features (n, D) of successive batches of images (N, H, W, C)."""
        ...


class FeatureExtractor:
    """The spatial mean of a network's last feature map."""

    def __init__(self, name: str, network: nn.Module, sha256: str, device: str = "cpu") -> None:
        self.name, self.sha256, self.device = name, sha256, device
        self.network = network.eval().requires_grad_(False).to(device)

    def batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        """Features (n, D) float32 of successive batches of images (N, H, W, C) uint8."""
        import torch

        for start in range(0, len(images), BLOCK):
            pixels = torch.from_numpy(np.array(images[start : start + BLOCK])).to(self.device)
            # TF32 would change the printed digits of a distance; everything else is float32.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # (n, C, H, W)
                pooled = self.network(x).mean((2, 3))  # (n, D)
            yield pooled.float().cpu().numpy()


def load_extractor(folder: Path, device: str = "cpu") -> FeatureExtractor:
    """The extractor of a checkpoint folder. Raises MissingError or CorruptError."""
    from .classifiers import load_feature_network

    name, network = load_feature_network(folder)
    digest = hashlib.sha256(repr(tree_sha256(folder)).encode()).hexdigest()
    return FeatureExtractor(name, network, digest, device)
