"""Images of a data set as network inputs, on the device if they fit there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSet
from ..distributed import current
from .compute_context import ComputeContext

HOST_BYTES = 4 << 30
SHARE = 0.25  # of a GPU's free memory: the rest is for training


class ImageBatches:
    """Random access to a data set by index tensors."""

    def __init__(self, data: ImageSet, context: ComputeContext) -> None:
        self.context, self.device = context, context.device
        self.count, self.class_names = len(data.images), data.class_names
        self._host = data.images
        fits = data.images.nbytes <= most_bytes(self.device)
        self._images = torch.from_numpy(np.ascontiguousarray(data.images)).to(self.device) if fits else None
        self._labels = None if data.labels is None else torch.from_numpy(np.asarray(data.labels)).to(self.device)

    def local(self, index: Tensor) -> Tensor:
        """This rank's rows of a batch's indices (N,)."""
        return index[current().rows(len(index))]

    def images(self, index: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1], of the default dtype. A data set that does not fit is read from its memory map."""
        if self._images is not None:
            pixels = self._images[self.context.upload(index)]
        else:
            pixels = self.context.upload(torch.from_numpy(np.ascontiguousarray(self._host[index.cpu().numpy()])))
        return pixels.permute(0, 3, 1, 2).to(torch.get_default_dtype()) / 127.5 - 1.0

    def labels(self, index: Tensor) -> Tensor:
        """(N,) int64."""
        if self._labels is None:
            raise ValueError("the data set has no labels")
        return self._labels[self.context.upload(index)]


def most_bytes(device: torch.device) -> float:
    """The largest data set to hold in the memory of this device: ImageNet at 64 pixels has 15.7 GB."""
    return SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOST_BYTES
