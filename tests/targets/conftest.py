"""One-step programs of small networks, as a target gets them: exported, with its rewrites applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from networks import small_unet
from numpy.typing import NDArray

from rdd_edge.portable import noise


@dataclass(frozen=True)
class Case:
    program: Any
    shape: tuple[int, int, int, int]
    classes: int | None
    z: NDArray[np.float32]  # (8, C, H, W)
    label: NDArray[np.int64] | None
    x: NDArray[np.float32]  # the network's own images of z

    def spec(self, precision: str) -> Any:
        from rdd_edge.targets.base import ExportSpec

        return ExportSpec(precision, self.shape, self.classes)

    def calibration(self, samples: int = 16) -> Any:
        from rdd_edge.targets.base import CalibrationSet

        label = None if self.classes is None else noise.labels(range(samples), self.classes)
        return CalibrationSet(noise.normals(1, range(samples), self.shape[1:]), label, 1)

    def share_without(self, *keep: str) -> float:
        """Multiplications of all layers but these, as a share of all, counted on the program itself."""
        from rdd_edge.graphs.layers import layers

        macs = {layer.name: layer.macs for layer in layers(self.program.module(check_guards=False))}
        assert set(keep) < set(macs)
        return sum(value for name, value in macs.items() if name not in keep) / sum(macs.values())

    def psnr(self, runner: Any) -> float:
        """Median over images, peak 2.0."""
        labels = [None] * len(self.z) if self.label is None else [self.label[i : i + 1] for i in range(len(self.z))]
        images = [runner.sample(self.z[i : i + 1], label) for i, label in enumerate(labels)]
        error = ((np.concatenate(images).astype(np.float64) - self.x) ** 2).mean(axis=(1, 2, 3))
        return float(np.median(10 * np.log10(4.0 / np.maximum(error, 1e-20))))


@cache
def _case(rewrites: tuple[str, ...], changes: tuple[tuple[str, Any], ...]) -> Case:
    import torch

    from rdd_edge.diffusion.network import one_step
    from rdd_edge.exporting.program import export_program
    from rdd_edge.exporting.rewrites import apply_rewrites

    model = small_unet(**dict(changes))
    shape = (1, model.config.in_channels, model.config.sample_size, model.config.sample_size)
    classes = model.config.num_class_embeds
    z = noise.normals(0, range(8), shape[1:])
    label = None if classes is None else noise.labels(range(8), classes)
    with torch.no_grad():
        x = one_step(model, torch.from_numpy(z), None if label is None else torch.from_numpy(label)).numpy()
    return Case(apply_rewrites(export_program(model, shape, classes), rewrites), shape, classes, z, label, x)


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    """make_case(rewrites, **changes of small_unet): made once a session for the same arguments."""
    return lambda rewrites, **changes: _case(tuple(rewrites), tuple(sorted(changes.items())))
