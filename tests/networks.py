"""Small networks with random weights."""

from __future__ import annotations

from typing import Any


def small_unet(*, seed: int = 0, **changes: Any) -> Any:
    """A UNet2DModel of a few hundred thousand random weights, 8 × 8 × 1 unless `changes` says otherwise.

    Its outputs have a standard deviation near 0.5, so that clipping to [-1, 1] hides nothing from a comparison.
    """
    import torch

    from rdd_edge.dependencies import import_diffusers

    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "norm_num_groups": 8,
        "attention_head_dim": None,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    } | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = import_diffusers().UNet2DModel(**config).eval()
        _scale_output(model)
    return model


def loud(network: Any, factor: float) -> Any:
    """The same function with feature maps `factor` times as large: all that normalisations are given, and no more.

    What is added to the maps is scaled, of the convolutions that only carry them on the bias alone.
    """
    import torch

    with torch.no_grad():
        for name, module in network.named_modules():
            if name == "conv_in" or name.endswith(("conv2", "to_out.0")):
                module.weight.mul_(factor)
            if name == "conv_in" or name.endswith(("conv2", "to_out.0", "samplers.0.conv", "conv_shortcut")):
                module.bias.mul_(factor)
    return network


def _scale_output(model: Any) -> None:
    import torch

    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    z = torch.randn(4, model.config.in_channels, height, width)
    label = None if model.class_embedding is None else torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        x = model(z, 999, class_labels=label).sample
        model.conv_out.bias -= x.mean()
        model.conv_out.weight *= 0.5 / x.std()
        model.conv_out.bias *= 0.5 / x.std()
