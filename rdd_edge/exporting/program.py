"""The exported function: noise z [, label] → image in [-1, 1], with t fixed at 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.traceback import NodeSource

from ..dependencies import silenced
from ..diffusion.network import one_step


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


@contextmanager
def converting() -> Iterator[None]:
    """Silence converters and make them faster.

    Every pass of a compiler deep-copies, into each new node, the full history of the node that it was made from, which
    takes a large part of a lowering's time. Inside the block, nodes share histories, which are never changed.
    """
    NodeSource.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        with silenced():
            yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]
