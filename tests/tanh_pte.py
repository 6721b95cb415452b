"""A bundle of the android target whose program is x = tanh(z), or tanh(z) · label / 10."""

from __future__ import annotations

import functools
from pathlib import Path

from bundles import write_fake_bundle


@functools.cache
def tanh_program(classes: int | None = None) -> bytes:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    class Tanh(torch.nn.Module):
        def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
            x = torch.tanh(z)
            return x if label is None else x * (label.float() / 10.0)[:, None, None, None]

    inputs = (torch.zeros(1, 1, 8, 8), *(() if classes is None else (torch.zeros(1, dtype=torch.int64),)))
    exported = torch.export.export(Tanh().eval(), inputs)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    content: bytes = bytes(lowered.to_executorch().buffer)
    return content


def write_tanh_bundle(parent: Path, name: str = "bundle", classes: int | None = None, backend: str = "xnnpack") -> Path:
    content = tanh_program(classes)
    return write_fake_bundle(parent, name=name, classes=classes, target="android", artifact=content, backend=backend)
