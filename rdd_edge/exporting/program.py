"""The exported function: noise z [, label] → image in [-1, 1], with t fixed at 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..diffusion.checkpoint import one_step

__all__ = ["OneStep", "export_program"]


class OneStep(nn.Module):
    """A one-step student as a function of its noise alone, in the form torch.export traces."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return one_step(self.unet, z, label)


def export_program(unet: nn.Module, input_shape: tuple[int, int, int, int], classes: int | None) -> ExportedProgram:
    """The one-step program, no rewrite applied.

    input_shape: (N, C, H, W), fixed.  classes: None for an unconditional model.
    """
    z = torch.zeros(input_shape)
    label = () if classes is None else (torch.zeros(input_shape[0], dtype=torch.int64),)
    with torch.no_grad():
        return torch.export.export(OneStep(unet).eval(), (z, *label), strict=False)
