"""Critics of the adversarial stage: one on the pixels and one on each of three maps of a frozen extractor.

Sauer et al. 2021 (Projected GANs): discriminators of a few layers on the features of a fixed network, at several
depths, see more than one on the pixels and cannot overfit as fast. With hinge loss (Lim & Ye 2017) and R1, the penalty
of the gradient at real images (Mescheder et al. 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = 3


class Critic(nn.Module):
    """Two convolutions on a map (N, C, h, w) and logits (N, 1, h, w), one for each of its pixels.

    For a conditional model the logits gain the inner product with an embedding of the label (Miyato & Koyama 2018).
    """

    def __init__(self, channels: int, width: int, classes: int | None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.head = nn.Conv2d(width, 1, 1)
        self.label = None if classes is None else nn.Embedding(classes, width)

    def forward(self, maps: Tensor, label: Tensor | None) -> Tensor:
        hidden = self.body(maps)
        logits: Tensor = self.head(hidden)
        if self.label is not None:
            logits = logits + (self.label(label)[:, :, None, None] * hidden).sum(1, keepdim=True)
        return logits


class Critics(nn.Module):
    """Critics on the pixels and on the extractor's maps; only the critics are trained and part of the state."""

    def __init__(self, extractor: nn.Sequential, image_shape: tuple[int, int, int], width: int, classes: int | None):
        super().__init__()
        self._extractor = [extractor]  # in a list, so that it is no submodule
        layers = len(extractor)
        self._at = {layers * depth // DEPTHS - 1 for depth in range(1, DEPTHS + 1)}
        first = next(extractor.parameters())
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, *image_shape, device=first.device, dtype=first.dtype))
        self.critics = nn.ModuleList(Critic(m.shape[1], width, classes) for m in maps)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The images (N, C, H, W) themselves and the extractor's maps of them, from shallow to deep."""
        maps = [x]
        hidden = x
        for index, layer in enumerate(self._extractor[0]):
            hidden = layer(hidden)
            if index in self._at:
                maps.append(hidden)
        return maps

    def forward(self, maps: list[Tensor], label: Tensor | None) -> list[Tensor]:
        """Logits of each critic for these maps."""
        return [critic(m, label) for critic, m in zip(self.critics, maps, strict=True)]


def new_critics(
    extractor: nn.Module, image_shape: tuple[int, int, int], width: int, classes: int | None, seed: int
) -> Critics:
    """Critics with random weights from `seed`, on the extractor's device.

    extractor: a sequence of layers (see metrics.classifiers.Features).
    """
    assert isinstance(extractor, nn.Sequential)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Critics(extractor, image_shape, width, classes)


def critic_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Hinge loss of the critics' logits, the mean over images and pixels and the sum over critics."""
    return torch.stack([F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]).sum()


def generator_loss(fake: list[Tensor]) -> Tensor:
    """-E D(x̂), summed over critics."""
    return -torch.stack([f.mean() for f in fake]).sum()


def gradient_penalty(real: list[Tensor], images: Tensor) -> Tensor:
    """R1: E‖∇ₓ D(x)‖² / 2 of the critics' summed mean logits at the real images (N, C, H, W), which need a gradient."""
    total = torch.stack([r.mean((1, 2, 3)).sum() for r in real]).sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2
