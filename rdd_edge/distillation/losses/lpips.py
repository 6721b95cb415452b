"""LPIPS (Zhang et al. 2018), version 0.1, for PD+LPIPS: the distance of two images in a classifier's features.

Importing the `lpips` package imports torchvision and downloads a backbone. Therefore only its learned weights are read,
from where it is installed; the backbone is written out here and takes torchvision's weights from a file that the user
gives. test_lpips.py compares the result with an independent implementation.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CorruptError, DependencyError, MissingError, UsageError
from ...reading.tensors import load_into, read_weights, require_fit
from ..config import Lpips

SOURCES = {
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
}
# torchvision's `features` up to the last tap: (channels, kernel, stride, padding) of a convolution and its ReLU, or the
# window of a max-pooling of stride 2. From Simonyan and Zisserman 2015 (configuration D) and Krizhevsky 2014.
LAYERS: dict[str, tuple[tuple[int, int, int, int] | int, ...]] = {
    "vgg": (
        *[(64, 3, 1, 1)] * 2, 2, *[(128, 3, 1, 1)] * 2, 2, *[(256, 3, 1, 1)] * 3, 2, *[(512, 3, 1, 1)] * 3, 2,
        *[(512, 3, 1, 1)] * 3,
    ),
    "alex": ((64, 11, 4, 2), 3, (192, 5, 1, 2), 3, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
}  # fmt: skip
TAPPED = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}  # indices of the ReLUs whose maps are compared
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # as in the package, for images in [-1, 1]
EPSILON = 1e-10
LEAST, MAGNIFIED, MOST = 32, 7, 224


def _backbone(network: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for layer in LAYERS[network]:
        if isinstance(layer, int):
            layers.append(nn.MaxPool2d(layer, 2))
        else:
            width, kernel, stride, padding = layer
            layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


class PerceptualDistance(nn.Module):
    """Σ over taps of the mean over pixels of w · (f̂_a - f̂_b)², f̂ a tap's map with each pixel normalised (Eq. 1).

    Under autocast only the backbone's matrix products are in half precision.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: str, size: int | None) -> None:
        """network: vgg or alex.  size: as in config.Lpips."""
        super().__init__()
        self.network, self.size = network, size
        self.features = _backbone(network)
        widths = [int(self.features[tap - 1].out_channels) for tap in TAPPED[network]]  # type: ignore[arg-type]
        self.weights = nn.ParameterList(torch.zeros(width) for width in widths)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)

    def taps(self, x: Tensor) -> list[Tensor]:
        """Maps of the five taps, each pixel normalised to length 1, of images (N, 1 or 3, H, W) in [-1, 1]."""
        x = x.expand(-1, 3, -1, -1)
        smallest = min(x.shape[2:])
        size = self.size or max(LEAST, min(MAGNIFIED * smallest, MOST))
        if smallest < size:
            factor = size / smallest
            sides = [round(side * factor) for side in x.shape[2:]]
            x = F.interpolate(x, size=sides, mode="bilinear", align_corners=False)
        x = (x - self.shift) / self.scale
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPPED[self.network]:
                full = x if x.dtype == torch.float64 else x.float()
                maps.append(full / (full.square().sum(1, keepdim=True).sqrt() + EPSILON))
        return maps

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair of images, (N,). a, b: (N, 1 or 3, H, W) in [-1, 1]; b receives no gradient."""
        with torch.no_grad():
            taps_b = self.taps(b)
        parts = [
            ((map_a - map_b).square() * weight.view(-1, 1, 1)).sum(1).mean((1, 2))
            for map_a, map_b, weight in zip(self.taps(a), taps_b, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(0)


def load_lpips(settings: Lpips, channels: int) -> PerceptualDistance:
    """The distance, frozen and in eval mode.  channels: of the images.

    Raises UsageError without a backbone or for images that are neither grey nor RGB, DependencyError without the lpips
    package, MissingError without the file, CorruptError for a file that does not hold the network's weights.
    """
    if channels not in (1, 3):
        raise UsageError(f"LPIPS needs images of 1 or 3 channels, and these have {channels}: choose another method")
    if settings.backbone is None:
        raise UsageError(
            f"LPIPS needs its backbone: give --set lpips.backbone=FILE with torchvision's weights from "
            f"{SOURCES[settings.network]}"
        )
    distance = PerceptualDistance(settings.network, settings.size)
    _load_backbone(distance, Path(settings.backbone), settings.network)
    _load_weights(distance, settings.network)
    return distance.eval().requires_grad_(False)


def _load_backbone(distance: PerceptualDistance, path: Path, network: str) -> None:
    if not os.path.isfile(path):
        raise MissingError(f"there is no {path}: LPIPS needs torchvision's weights from {SOURCES[network]}")
    features = {key.removeprefix("features."): value for key, value in read_weights(path).items()}
    wanted = {key: features[key] for key in distance.features.state_dict() if key in features}
    try:
        load_into(distance.features, wanted, path)
    except CorruptError as error:
        raise CorruptError(
            f"{error}: it is not torchvision's {network}; download it from {SOURCES[network]}, or set lpips.network"
        ) from None


def _load_weights(distance: PerceptualDistance, network: str) -> None:
    """Load the learned weights of the taps from the installed package, without importing it."""
    spec = find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(
            "PD+LPIPS needs lpips: pip install 'rdd-edge[lpips]', or, if torchvision does not match your torch, "
            "pip install --no-deps lpips"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "weights" / "v0.1" / f"{network}.pth"
    if not path.is_file():
        raise DependencyError(f"the installed lpips has no {path}: pip install --force-reinstall --no-deps lpips")
    tensors = read_weights(path)
    expected = {f"lin{tap}.model.1.weight": weight.view(1, -1, 1, 1) for tap, weight in enumerate(distance.weights)}
    try:
        require_fit(expected, tensors, path)
    except CorruptError as error:
        raise CorruptError(f"{error}: pip install --force-reinstall --no-deps lpips") from None
    for name, weight in zip(expected, distance.weights, strict=True):
        with torch.no_grad():
            weight.copy_(tensors[name].view(-1))
