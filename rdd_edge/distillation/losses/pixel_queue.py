"""The memory of M_P2P: a ring buffer of single pixels of past teacher feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..compute_context import ComputeContext
from .functional import unit_pixels


class PixelQueue:
    """Unit vectors (capacity, C); the oldest are replaced first. An entry is the C-vector of one pixel of one map."""

    def __init__(self, capacity: int, channels: int, context: ComputeContext | None = None) -> None:
        self.context = context or ComputeContext(torch.device("cpu"))
        self.entries = torch.zeros(capacity, channels, device=self.context.device)
        self.pushed = 0  # in total; the next entry is written at this index modulo the capacity

    def __len__(self) -> int:
        return min(self.pushed, len(self.entries))

    def push(self, maps: Tensor, per_image: int, generator: torch.Generator) -> None:
        """Append `per_image` pixels of each teacher map, drawn at random without repetition.

        maps: (N, C, h, w).  If a map has fewer pixels, all of them are appended.
        """
        pixels = unit_pixels(maps.detach())  # (N, A, C)
        n, a, c = pixels.shape
        order = self.context.upload(torch.rand(n, a, generator=generator).argsort(1)[:, :per_image])  # (N, K)
        chosen = pixels.gather(1, order.unsqueeze(-1).expand(-1, -1, c)).reshape(-1, c)[-len(self.entries) :]
        positions = (torch.arange(len(chosen)) + self.pushed) % len(self.entries)
        self.entries[self.context.upload(positions)] = chosen.to(self.entries.dtype)
        self.pushed += len(chosen)

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """`count` different random entries (count, C); None while the queue holds fewer."""
        if len(self) < count:
            return None
        return self.entries[self.context.upload(torch.randperm(len(self), generator=generator)[:count])]

    def state(self) -> dict[str, Tensor]:
        return {"entries": self.entries, "pushed": torch.tensor(self.pushed)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the queue; it stays empty if a compacted state left it out."""
        if state:
            self.entries.copy_(state["entries"])
            self.pushed = int(state["pushed"])
