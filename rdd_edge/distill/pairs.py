"""Eq. 7 in memory linear in the batch: the mean KL over all ordered pairs of images, one block of pairs at a time.

The gradient is worked out while a block's values are at hand, so that nothing of the N² A² similarities outlives its
block and no block is computed twice. With u_i = unit pixels of the student's image i, S_ij = u_i u_jᵀ/τ,
q = softmax(S), p = softmax(T): ∂KL/∂S = q - p, hence ∂/∂u_i = (q - p) u_j/τ and ∂/∂u_j = (q - p)ᵀ u_i/τ.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["mean_pair_kl"]

BLOCK_ELEMENTS = 1 << 18  # similarities held at a time: 1 MiB a buffer in float32, which stays in a core's cache


def mean_pair_kl(student: Tensor, teacher: Tensor, tau: float, block_elements: int = BLOCK_ELEMENTS) -> Tensor:
    """Mean over ordered pairs (i, j) and rows a of KL(softmax(t_ia · t_j/τ) ‖ softmax(s_ia · s_j/τ)).

    student, teacher: unit pixels (N, A, C); the softmax runs over the A pixels of image j.  Returns a scalar.
    Only the student receives a gradient, once: a second derivative is an error.
    """
    return cast(Tensor, _MeanPairKL.apply(student, teacher, tau, block_elements))  # type: ignore[no-untyped-call]


class _MeanPairKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, tau: float, block_elements: int) -> Tensor:
        n, a, c = student.shape
        rows = max(1, block_elements // (n * a * a))  # images i of a block: (rows · A) x (N · A) similarities
        flat_s, flat_t = student.reshape(n * a, c), teacher.reshape(n * a, c)
        grad = torch.zeros_like(flat_s) if ctx.needs_input_grad[0] else None
        total = student.new_zeros((), dtype=torch.float64)
        for start in range(0, n, rows):
            here = slice(start * a, min(start + rows, n) * a)
            total += _block(flat_s, flat_t, here, n, a, tau, grad)
        scale = 1.0 / (n * n * a)
        ctx.save_for_backward(grad.mul_(scale / tau).view(n, a, c) if grad is not None else None)
        return (total * scale).to(student.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (upstream * grad if grad is not None else None), None, None, None


def _block(s: Tensor, t: Tensor, here: slice, n: int, a: int, tau: float, grad: Tensor | None) -> Tensor:
    """Sum of the KL of the pixels `here` against all images, and its gradient added to `grad` (without 1/τ)."""
    log_p = torch.log_softmax((t[here] @ t.T).div_(tau).view(-1, n, a), dim=-1)  # (rows·A, N, A)
    log_q = torch.log_softmax((s[here] @ s.T).div_(tau).view(-1, n, a), dim=-1)
    p = log_p.exp()
    total = torch.sum(p * (log_p - log_q), dtype=torch.float64)
    if grad is not None:
        difference = log_q.exp_().sub_(p).view(-1, n * a)  # q - p
        grad[here] += difference @ s
        grad.addmm_(difference.T, s[here])
    return total
