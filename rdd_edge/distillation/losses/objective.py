"""L_PD and L_RDD (Eq. 10) as a weighted sum of configured terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...distributed import current
from ..collectives import gather_rows
from ..compute_context import ComputeContext
from ..config import Losses, Memory, Taus
from . import functional as losses
from .lpips import PerceptualDistance
from .pixel_queue import PixelQueue


class Objective:
    """The terms of one fold, with the pixel queue and the projection head that M_P2P needs."""

    def __init__(
        self, weights: Losses, taus: Taus, memory: Memory, student_steps: int, extractor: nn.Module | None,
        context: ComputeContext, perceptual: PerceptualDistance | None = None,
    ) -> None:  # fmt: skip
        self.context, self.perceptual = context, perceptual
        self.weights, self.taus, self.memory = weights, taus, memory
        self.tau_cfd = taus.cfd.get(student_steps, 1.0)
        self.extractor = extractor
        self.queue: PixelQueue | None = None
        self.head: nn.Module | None = None

    def prepare(self, channels: int, seed: int) -> None:
        """Create the queue and the head for feature maps of `channels`, if M_P2P is among the terms."""
        if self.weights.m_p2p:
            self.queue = PixelQueue(self.memory.capacity, channels, self.context)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.head = nn.Sequential(  # discarded after training
                    nn.Conv2d(channels, channels, 1, bias=False),  # batch norm would cancel a bias
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels, 1),
                ).to(self.context.device)

    def compute(
        self, student: Tensor, target: Tensor, weight: Tensor, rng: torch.Generator, batch: int
    ) -> dict[str, Tensor | None]:
        """The terms of non-zero weight, unweighted; None stands for M_P2P before the queue holds V entries.

        student: x̂ (N, C, H, W) with gradient.  target: x^T.  weight: ω_t (N,).  These are this rank's rows of a batch
        of `batch`, and each term is its part of the batch's: the sum over ranks is the term.
        A batch enters the queue after its own loss, so it is never its own contrast.
        """
        w, terms = self.weights, dict[str, Tensor | None]()
        fraction = current().fraction(batch)
        if w.pd:
            terms["pd"] = losses.pd_loss(student, target, weight) * fraction
        if w.lpips:
            assert self.perceptual is not None
            with self.context.autocast():
                distance = self.perceptual(student, target)
            terms["lpips"] = distance.mean() * fraction
        if w.uses_features:
            assert self.extractor is not None
            with self.context.autocast():
                with torch.no_grad():
                    t = self.extractor(target)
                s = self.extractor(student)
            if w.cfd:
                terms["cfd"] = losses.cfd_loss(s, t, self.tau_cfd) * fraction
            if w.ii_p2p:
                terms["ii_p2p"] = losses.ii_p2p_loss(s, t, self.taus.relation) * fraction
            if w.is_p2p or w.m_p2p:  # pairs, head and queue span the batch of all ranks
                s, t = gather_rows(s, batch), gather_rows(t, batch)
            if w.is_p2p:
                terms["is_p2p"] = losses.is_p2p_loss(s, t, self.taus.relation, (current().rank, current().size))
            if w.m_p2p:
                terms["m_p2p"] = self._m_p2p(s, t, rng)
        return terms

    def _m_p2p(self, s: Tensor, t: Tensor, rng: torch.Generator) -> Tensor | None:
        assert self.queue is not None and self.head is not None
        contrast = self.queue.draw(self.memory.draw, rng)
        loss = None
        if contrast is not None:
            rows = current().rows(len(s))
            with self.context.autocast():
                projected = self.head(s)[rows]
            loss = losses.m_p2p_loss(projected, t[rows], contrast, self.taus.memory) * current().fraction(len(s))
        self.queue.push(t, self.memory.per_image, rng)
        return loss

    def total(self, terms: dict[str, Tensor | None]) -> Tensor:
        """The weighted sum, Eq. 10 with α and β among the weights."""
        weights = self.weights.model_dump()
        parts = [weights[name] * value for name, value in terms.items() if value is not None]
        return torch.stack(parts).sum()
