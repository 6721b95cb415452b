"""The schedule's identities, and DDIM against diffusers' own scheduler."""

import diffusers
import numpy as np
import pytest
import torch

from rdd_edge.diffusion.samplers import sample
from rdd_edge.diffusion.schedule import (
    add_noise,
    alpha_sigma,
    ddim_step,
    network_time,
    scheduler_config,
    snr_weight,
)
from rdd_edge.distillation.stages.halving import two_step_target


def test_alpha_and_sigma_are_exact_at_both_ends_and_on_the_circle():
    alpha, sigma = alpha_sigma(torch.tensor([0.0, 1.0, 0.5, 0.125]))
    assert (alpha[0].item(), sigma[0].item(), alpha[1].item(), sigma[1].item()) == (1.0, 0.0, 0.0, 1.0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(4))


def test_the_weight_is_the_truncated_snr_and_is_capped():
    t = torch.tensor([1.0, 0.75, 0.25, 1e-6], dtype=torch.float64)
    ratio = 1 / torch.tan(torch.tensor(0.25, dtype=torch.float64) * torch.pi / 2) ** 2
    expected = torch.tensor([1.0, 1.0, ratio.item(), (2 / (np.pi * 1e-6)) ** 2], dtype=torch.float64)
    torch.testing.assert_close(snr_weight(t), expected)
    torch.testing.assert_close(snr_weight(t, 5.0), expected.clamp(max=5.0))


def test_the_weighted_x_error_is_the_greater_of_x_and_noise_error():
    draws = torch.Generator().manual_seed(0)
    x, noise, guess = (torch.randn(5, 1, 4, 4, generator=draws, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([0.1, 0.4, 0.5, 0.8, 0.95], dtype=torch.float64)
    alpha, sigma = (c.view(-1, 1, 1, 1) for c in alpha_sigma(t))
    z = add_noise(x, noise, t)
    x_error = ((guess - x) ** 2).mean((1, 2, 3))
    noise_error = (((z - alpha * guess) / sigma - noise) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(snr_weight(t) * x_error, torch.maximum(x_error, noise_error))


def fake_network(z: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """An x̂ that depends on both arguments and sometimes needs clipping."""
    return 1.3 * torch.tanh(z * (1 + timestep.view(-1, 1, 1, 1) / 500) + 0.2)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 20, 50])
def test_sampling_equals_diffusers_ddim(steps):
    scheduler = diffusers.DDIMScheduler.from_config(scheduler_config())
    scheduler.set_timesteps(steps)
    z = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = z
    for timestep in scheduler.timesteps:
        x = fake_network(theirs, timestep[None])
        # Eq. 1 uses one x̂ throughout; diffusers does so, once it clips, only when asked to.
        theirs = scheduler.step(x, timestep, theirs, use_clipped_model_output=True).prev_sample
    ours = sample(lambda z_t, t: fake_network(z_t, network_time(t)), z, steps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)  # diffusers keeps ᾱ as a float32 product of 1000 terms


def test_a_ddim_step_to_zero_is_the_prediction_itself():
    x, z = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    assert torch.equal(ddim_step(x, z, torch.ones(2) * 0.3, torch.zeros(2)), x)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_two_step_target_sends_one_step_where_two_go(steps):
    """Brute force: the x̂ found by solving one DDIM step for its end point, pixel by pixel."""
    draws = torch.Generator().manual_seed(steps)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    z = torch.randn(steps, 1, 4, 4, generator=draws, dtype=torch.float64)
    teacher = lambda z_t, time: fake_network(z_t, network_time(time))  # noqa: E731
    target = two_step_target(teacher, z, t, steps)
    middle, end = t - 0.5 / steps, t - 1 / steps
    z_middle = ddim_step(teacher(z, t), z, t, middle)
    z_end = ddim_step(teacher(z_middle, middle), z_middle, middle, end.clamp(min=0))
    low, high = torch.full_like(z, -50.0), torch.full_like(z, 50.0)
    for _ in range(200):  # one step is increasing in x̂, so bisection finds it
        guess = (low + high) / 2
        below = ddim_step(guess, z, t, end.clamp(min=0)) < z_end
        low, high = torch.where(below, guess, low), torch.where(below, high, guess)
    torch.testing.assert_close(target, (low + high) / 2, rtol=0, atol=1e-9)
    assert torch.equal(target[0], teacher(z_middle, middle)[0])  # where t'' = 0 it is x̂₂ itself
