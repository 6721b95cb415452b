"""The losses of progressive, classifier-feature and relational diffusion distillation (Eq. 2-9), as pure functions.

Feature maps (N, C, h, w) are the extractor's last ones, after batch norm and ReLU; A = h·w. The teacher's arguments
never receive a gradient. Every KL term is computed in float32 or better.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .pairwise_kl import mean_pair_kl


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is that already: no loss is computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def unit_pixels(maps: Tensor) -> Tensor:
    """(N, C, h, w) → (N, A, C), each pixel's vector normalised to length 1."""
    return F.normalize(at_least_float32(maps).flatten(2).transpose(1, 2), dim=-1)


def kl_rows(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) over the last dimension, the mean over all others (Eq. 5).

    teacher, student: logits (..., K).  Returns a scalar.
    """
    p, q = F.log_softmax(teacher, dim=-1), F.log_softmax(student, dim=-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def pd_loss(student: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L_PD, Eq. 2: ω_t times the mean squared error over an image's pixels; the mean over the batch.

    student, target: images (N, C, H, W).  weight: ω_t (N,).  Returns a scalar.
    """
    error = (at_least_float32(student) - at_least_float32(target.detach())).square().flatten(1).mean(1)  # (N,)
    return (weight * error).mean()


def cfd_loss(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """L_CFD, Eq. 4: KL of the softmax of average-pooled features; τ softens only the teacher.

    student, teacher: (N, C, h, w).  Returns a scalar.
    """
    t = at_least_float32(teacher.detach()).mean((2, 3)) / tau  # (N, C)
    return kl_rows(t, at_least_float32(student).mean((2, 3)))


def ii_p2p_loss(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """L_II_P2P, Eq. 6: within each image, rows of M = F Fᵀ over all its pixels; the mean over rows and images.

    student, teacher: (N, C, h, w).  Returns a scalar.
    """
    s, t = unit_pixels(student), unit_pixels(teacher.detach())  # (N, A, C)
    return kl_rows(t @ t.transpose(1, 2) / tau, s @ s.transpose(1, 2) / tau)


def is_p2p_loss(student: Tensor, teacher: Tensor, tau: float, part: tuple[int, int] = (0, 1)) -> Tensor:
    """L_IS_P2P, Eq. 7: Eq. 6 between the pixels of images i and j, the mean over all N² ordered pairs.

    student, teacher: (N, C, h, w).  Returns a scalar. Extra memory grows linearly in N (see pairwise_kl.py).
    part: (rank, number of ranks): this rank's part of the mean; the parts add up to it.
    """
    return mean_pair_kl(student, teacher.detach(), tau, part=part)


def m_p2p_loss(student: Tensor, teacher: Tensor, contrast: Tensor, tau: float) -> Tensor:
    """L_M_P2P, Eq. 9: both maps' pixels against the same V pixels drawn from the queue; the mean over A and N.

    student, teacher: (N, C, h, w), the student's already projected.  contrast: (V, C) unit vectors.
    Returns a scalar.
    """
    e = at_least_float32(contrast.detach()).T  # (C, V)
    s, t = unit_pixels(student) @ e / tau, unit_pixels(teacher.detach()) @ e / tau  # (N, A, V)
    return kl_rows(t, s)
