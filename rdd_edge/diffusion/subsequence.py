"""The student's diffusion in SFDDM (Hong et al. 2024): T′ steps on a subsequence φ of the teacher's T, ᾱ′_t = ᾱ_φ(t).

Step t of the student has two times. Its noise is that of the teacher's time φ_t/T. The network's input is the student's
own time, t/T′ rounded to diffusers' 1000 indices, so that a one-step student is evaluated at t = 1 like any other, and
at the same indices by diffusers' DDIMScheduler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .network import Denoiser
from .schedule import TRAIN_TIMESTEPS, ddim_step, scheduler_config


def even_subsequence(steps: int, teacher_steps: int) -> tuple[int, ...]:
    """φ_t = round(t·T/T′), t = 1 … T′; T need not be a multiple of T′. Raises UsageError unless 1 <= T′ <= T."""
    if not 1 <= steps <= teacher_steps:
        raise UsageError(f"--sfddm-steps {steps} is not between 1 and the teacher's {teacher_steps} steps")
    return tuple(math.floor(t * teacher_steps / steps + 0.5) for t in range(1, steps + 1))


def noise_times(subsequence: Sequence[int], teacher_steps: int) -> tuple[float, ...]:
    """The teacher's times φ_t/T, in (0, 1]. Raises UsageError where φ does not increase to T within 1 … T."""
    text = ",".join(map(str, subsequence))
    if not subsequence or any(b <= a for a, b in zip((0, *subsequence), subsequence, strict=False)):
        raise UsageError(
            f"--subsequence {text} does not increase: each index must exceed the one before, and the first 0"
        )
    if subsequence[-1] != teacher_steps:
        raise UsageError(
            f"--subsequence {text} ends at {subsequence[-1]}: it must end at the teacher's {teacher_steps} steps, "
            "where sampling begins"
        )
    if len(subsequence) > TRAIN_TIMESTEPS:
        raise UsageError(f"--subsequence has {len(subsequence)} indices: a student has at most {TRAIN_TIMESTEPS} steps")
    return tuple(index / teacher_steps for index in subsequence)


def own_times(steps: int) -> tuple[float, ...]:
    """The network's time at the student's steps 1 … T′: t/T′ on diffusers' indices under trailing spacing."""
    indices = np.round(np.arange(TRAIN_TIMESTEPS, 0, -TRAIN_TIMESTEPS / steps))[:steps]
    return tuple(float(i) / TRAIN_TIMESTEPS for i in indices[::-1])


@torch.no_grad()
def sample_subsequence(predict: Denoiser, z: Tensor, times: Sequence[float]) -> Tensor:
    """x from z = z_1 (N, C, H, W) by DDIM on ᾱ′. times: `noise_times`, increasing; x̂ is clipped at each step."""
    ends = (0.0, *times[:-1])
    for own, t, s in reversed(list(zip(own_times(len(times)), times, ends, strict=True))):
        network_time, t_noise, s_noise = (torch.full((len(z),), value, device=z.device) for value in (own, t, s))
        x = predict(z, network_time).clamp(-1.0, 1.0)
        z = ddim_step(x, z, t_noise, s_noise)
    return x


def subsequence_scheduler(times: Sequence[float]) -> dict[str, Any]:
    """diffusers' DDIMScheduler of ᾱ′, for sampling in T′ steps and in no other number.

    ᾱ is constant around each index that the scheduler visits, because where 1000/T′ is not an integer, it reads ᾱ of
    the next step one index off.
    """
    visited = np.array([0, *(round(own * TRAIN_TIMESTEPS) for own in own_times(len(times)))]) - 1  # k of steps 0 … T′
    index = np.arange(TRAIN_TIMESTEPS)
    step = (index[:, None] > (visited[:-1] + visited[1:]) / 2).sum(axis=1)  # (1000,): the step whose ᾱ′ index k has
    return scheduler_config(torch.tensor([0.0, *times], dtype=torch.float64)[torch.from_numpy(step)])
