"""Training-free samplers on a network that knows the answer, and beside the method's own DDIM."""

import numpy as np
import pytest
import torch
from networks import small_unet
from torch import nn

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.samplers import SAMPLERS, training_free
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.diffusion.schedule import scheduler_config
from rdd_edge.errors import UsageError

OURS = torch.tensor(scheduler_config()["trained_betas"], dtype=torch.float64)
LINEAR = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)


class Known(nn.Module):
    """The exact network of data that is N(mean, 0.25) in every pixel, predicting ε, v or x."""

    def __init__(self, betas: torch.Tensor, prediction: str, mean: float = 0.3) -> None:
        super().__init__()
        self.cumulative, self.prediction, self.mean = torch.cumprod(1 - betas, 0), prediction, mean

    def forward(self, z, timestep, class_labels=None):
        cumulative = self.cumulative[int(timestep)].float()
        alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
        x = self.mean + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (z - alpha * self.mean)
        noise = (z - alpha * x) / sigma
        output = {"sample": x, "epsilon": noise, "v_prediction": alpha * noise - sigma * x}[self.prediction]
        return type("Output", (), {"sample": output})


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_reaches_the_data_of_a_perfect_network(name, prediction):
    """The ODE's solution keeps each pixel's place in the distribution: x = mean + z / 2, since σ of the data is 0.5."""
    z = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1.3, 1.3)
    betas = LINEAR if prediction == "epsilon" else OURS
    x = training_free(name, 100, Known(betas, prediction), betas, prediction)(z, None)
    torch.testing.assert_close(x, 0.3 + 0.5 * z, rtol=0, atol=0.05)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_ddim_is_the_methods_own_sampler(tiny_checkpoint, steps):
    checkpoint = read_checkpoint(tiny_checkpoint)
    ours = sample_images(checkpoint, 8, steps, 0).astype(int)
    assert np.abs(ours - sample_images(checkpoint, 8, steps, 0, sampler="ddim")).max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("name", SAMPLERS)
def test_any_number_of_steps_gives_finite_images(name, steps):
    unet = small_unet()
    x = training_free(name, steps, unet, OURS, "sample")(torch.randn(2, 1, 8, 8), None)
    assert torch.isfinite(x).all()


def test_refusals(tiny_checkpoint):
    checkpoint = read_checkpoint(tiny_checkpoint)
    with pytest.raises(UsageError, match="no sampler 'euler'"):
        sample_images(checkpoint, 2, 2, 0, sampler="euler")
    with pytest.raises(UsageError, match="more than the 1000 steps"):
        sample_images(checkpoint, 2, 1001, 0, sampler="ddim")
