"""Images of a data set as network inputs, on the device if they fit there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSet
from ..distributed import current
from .compute_context import ComputeContext

ON_DEVICE_BYTES = 4 << 30


class ImageBatches:
    """Random access to a data set by index tensors."""

    def __init__(self, data: ImageSet, context: ComputeContext) -> None:
        self.context, self.device = context, context.device
        self.count, self.class_names = len(data.images), data.class_names
        self._host = data.images
        fits = data.images.nbytes <= ON_DEVICE_BYTES
        self._images = torch.from_numpy(np.ascontiguousarray(data.images)).to(self.device) if fits else None
        self._labels = None if data.labels is None else torch.from_numpy(np.asarray(data.labels)).to(self.device)

    def local(self, index: Tensor) -> Tensor:
        """This rank's rows of a batch's indices (N,)."""
        return index[current().rows(len(index))]

    def images(self, index: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1], of the default dtype. A data set larger than 4 GiB is read from its memory map."""
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
