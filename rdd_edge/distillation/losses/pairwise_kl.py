"""Eq. 7 in memory linear in the batch: the mean KL over all ordered pairs of images, one block of pairs at a time.

With u_i the unit pixels of the student's image i, S_ij = u_i u_jᵀ/τ, q = softmax(S), p = softmax(T) over the pixels of
image j: ∂KL/∂S = q - p, hence ∂/∂u_i = (q - p) u_j/τ and ∂/∂u_j = (q - p)ᵀ u_i/τ. The gradient is computed together
with a block's values, so that none of the N² A² similarities outlives its block and none is computed twice.

S_ji = S_ijᵀ, so a block of the upper triangle serves both orders of its pairs: the softmax of its rows is that of
(i, j), the softmax of its columns that of (j, i). That halves the products, which are nearly all of the work.

Pixels are normalised here as well, so that only one copy of each map in row order is held.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

EPSILON = 1e-12  # of the length, as in torch.nn.functional.normalize


def mean_pair_kl(
    student: Tensor, teacher: Tensor, tau: float, block_elements: int | None = None, part: tuple[int, int] = (0, 1)
) -> Tensor:
    """Mean over ordered pairs (i, j) and pixels a of KL(softmax(t_ia · t_j/τ) ‖ softmax(s_ia · s_j/τ)), a scalar.

    student, teacher: maps (N, C, h, w) of any length per pixel; the softmax runs over the A = h·w pixels of image j.
    part: (rank, number of ranks); only the blocks of `rank` are summed, so the results of all ranks add up to the mean.
    Computed in float32 or better. Only the student receives a gradient; a second derivative is an error.
    """
    # On a CPU 1 MiB per buffer, which stays in a core's cache and halves the time.
    block_elements = block_elements or (1 << 18 if student.device.type == "cpu" else 1 << 24)
    return cast(Tensor, _MeanPairKL.apply(student, teacher, tau, block_elements, part))  # type: ignore[no-untyped-call]


class _MeanPairKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, tau: float, block_elements: int, part: tuple[int, int]
    ) -> Tensor:
        n, a = len(student), student[0, 0].numel()
        s, lengths = _unit_rows(student)
        t, _ = _unit_rows(teacher)
        grad = torch.zeros_like(s) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float64, device=s.device)
        images = max(1, block_elements // (n * a * a))  # images i of a block, each against all j ≥ i
        rank, ranks = part
        for start in range(rank * images, n, ranks * images):
            here, after = slice(start * a, min(start + images, n) * a), slice(min(start + images, n) * a, n * a)
            total += _block(s, t, here, here, a, tau, grad)  # includes both orders of its pairs
            if after.start < after.stop:
                total += _block(s, t, here, after, a, tau, grad)
        del t
        scale = 1.0 / (n * n * a)
        if grad is not None:
            grad.mul_(scale / tau)
            # From the gradient by the directions to that by the pixels: (g - (g·u) u)/‖x‖.
            grad.addcmul_(s, torch.linalg.vecdot(grad, s).unsqueeze(1), value=-1).div_(lengths)
            del s
            # All that is kept for the backward pass, in the map's own type and order of dimensions.
            grad = grad.view(n, a, -1).transpose(1, 2).reshape(student.shape).to(student.dtype)
        ctx.save_for_backward(grad)
        return (total * scale).to(lengths.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (upstream.to(grad.dtype) * grad if grad is not None else None), None, None, None, None


def _unit_rows(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, h, w) → pixels normalised to length 1 (N·A, C), and their original lengths (N·A, 1)."""
    kind = torch.promote_types(maps.dtype, torch.float32)
    rows = maps.flatten(2).transpose(1, 2).to(kind, copy=True, memory_format=torch.contiguous_format)
    rows = rows.view(-1, maps.shape[1])
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(EPSILON)
    return rows.div_(lengths), lengths


def _block(s: Tensor, t: Tensor, rows: slice, columns: slice, a: int, tau: float, grad: Tensor | None) -> Tensor:
    """Sum of the KL of the pixels `rows` against `columns`, and of `columns` against `rows` if they differ.

    The gradient, without 1/τ, is added to `grad`.
    """
    similar_t, similar_s = ((x[rows] @ x[columns].T).div_(tau).view(-1, a, x[columns].shape[0] // a, a) for x in (t, s))
    total, difference = _kl(similar_t, similar_s, 3)  # (i, pixel of i, j, pixel of j)
    if rows != columns:
        other, transposed = _kl(similar_t, similar_s, 1)
        total += other
        difference += transposed
    if grad is not None:
        flat = difference.view(rows.stop - rows.start, columns.stop - columns.start)
        grad[rows].addmm_(flat, s[columns])
        grad[columns].addmm_(flat.T, s[rows])
    return total


def _kl(teacher: Tensor, student: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Sum of KL(softmax(teacher) ‖ softmax(student)) over `dim`, and q - p."""
    log_p, log_q = torch.log_softmax(teacher, dim), torch.log_softmax(student, dim)
    p, ratio = log_p.exp(), log_p.sub_(log_q)
    difference = log_q.exp_().sub_(p)
    return torch.sum(ratio.mul_(p), dtype=torch.float64), difference
