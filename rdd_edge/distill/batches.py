"""Images of a data set as network inputs, on the device where they fit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSet

__all__ = ["Batches", "to_unit"]

ON_DEVICE_BYTES = 4 << 30


def to_unit(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C) → float32 (N, C, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


class Batches:
    """Random access to a data set by index tensors."""

    def __init__(self, data: ImageSet, device: torch.device) -> None:
        self.device = device
        self.count = len(data.images)
        self._host = data.images
        fits = data.images.nbytes <= ON_DEVICE_BYTES
        self._images = torch.from_numpy(np.ascontiguousarray(data.images)).to(device) if fits else None
        self._labels = None if data.labels is None else torch.from_numpy(np.asarray(data.labels)).to(device)

    def images(self, index: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1]. A set larger than 4 GiB is read from its memory map."""
        if self._images is not None:
            return to_unit(self._images[index.to(self.device)])
        rows = np.ascontiguousarray(self._host[index.cpu().numpy()])
        return to_unit(torch.from_numpy(rows).to(self.device, non_blocking=True))

    def labels(self, index: Tensor) -> Tensor:
        """(N,) int64."""
        if self._labels is None:
            raise ValueError("the data set has no labels")
        return self._labels[index.to(self.device)]
