"""Random weights of a ResNet and a DenseNet by torchvision's names."""

from __future__ import annotations

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def norm(name: str, channels: int) -> Tensors:
    """Tensors of a batch normalisation, none of them the default."""
    values = {kind: torch.randn(channels) for kind in ("weight", "bias", "running_mean")}
    values |= {"running_var": torch.rand(channels) + 0.5, "num_batches_tracked": torch.tensor(3)}
    return {f"{name}.{kind}": value for kind, value in values.items()}


def conv(name: str, out: int, channels: int, size: int) -> Tensors:
    return {f"{name}.weight": torch.randn(out, channels, size, size) / (channels * size**2) ** 0.5}


def resnet(depths: tuple[int, ...], expansion: int, width: int = 4) -> Tensors:
    """depths: blocks of each level.  expansion: 4 for bottlenecks, else 1."""
    torch.manual_seed(0)
    tensors = {**conv("conv1", width, 3, 7), **norm("bn1", width)}
    channels = width
    for level, depth in enumerate(depths):
        inner = width * 2**level
        for index in range(depth):
            name, stride = f"layer{level + 1}.{index}", 2 if level and not index else 1
            sizes = ((1, channels), (3, inner), (1, inner)) if expansion == 4 else ((3, channels), (3, inner))
            for number, (size, before) in enumerate(sizes, 1):
                after = inner * expansion if number == len(sizes) else inner
                tensors |= conv(f"{name}.conv{number}", after, before, size) | norm(f"{name}.bn{number}", after)
            if stride != 1 or channels != inner * expansion:
                tensors |= conv(f"{name}.downsample.0", inner * expansion, channels, 1)
                tensors |= norm(f"{name}.downsample.1", inner * expansion)
            channels = inner * expansion
    return {**tensors, "fc.weight": torch.randn(5, channels), "fc.bias": torch.randn(5)}


def densenet(depths: tuple[int, ...], growth: int = 4, width: int = 8) -> Tensors:
    torch.manual_seed(0)
    tensors = {**conv("features.conv0", width, 3, 7), **norm("features.norm0", width)}
    channels = width
    for block, depth in enumerate(depths, 1):
        for index in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{index}"
            tensors |= norm(f"{name}.norm1", channels) | conv(f"{name}.conv1", 4 * growth, channels, 1)
            tensors |= norm(f"{name}.norm2", 4 * growth) | conv(f"{name}.conv2", growth, 4 * growth, 3)
            channels += growth
        if block < len(depths):
            name = f"features.transition{block}"
            tensors |= norm(f"{name}.norm", channels) | conv(f"{name}.conv", channels // 2, channels, 1)
            channels //= 2
    head = {"classifier.weight": torch.randn(5, channels), "classifier.bias": torch.randn(5)}
    return {**tensors, **norm("features.norm5", channels), **head}
