"""Quality of a checkpoint's own samples in PyTorch: Fréchet distance to real images, beside the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .checkpoint import read_checkpoint
from .data import ImageSet
from .files import write_model
from .metrics.extractors import Extractor
from .metrics.frechet import StatisticsAccumulator, frechet_distance, real_floor
from .results import Frozen, Sha256, UInt64
from .sampling import sample_images, sampling_steps

__all__ = ["Evaluation", "Row", "evaluate"]

FLOOR_SEED = 0
Number = Annotated[float, Field(allow_inf_nan=False)]


class Row(Frozen):
    """One checkpoint in one number of sampling steps."""

    checkpoint: str
    checkpoint_sha256: Sha256
    method: str | None
    steps: int = Field(ge=1)
    distance: Number


class Evaluation(Frozen):
    """Fréchet distances of samples 0 … samples - 1 of the noise of `seed` to the same real images."""

    schema_version: Literal[1] = 1
    metric: str  # fd_<extractor>
    extractor_sha256: Sha256
    data: str
    data_sha256: Sha256
    real_images: int = Field(ge=2)
    samples: int = Field(ge=2)
    seed: UInt64
    floor: Number  # a random half of the real images to the other half
    rows: tuple[Row, ...]
    caution: str | None


def evaluate(
    checkpoint: Path,
    steps: Sequence[int],
    count: int,
    seed: int,
    real: ImageSet,
    extractor: Extractor,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a checkpoint in each number of steps; none given: in the one it was trained for.

    out: where to write the evaluation as JSON.  progress: told (steps, images done).
    """
    found = read_checkpoint(checkpoint)
    counts = [sampling_steps(found, n) for n in steps] or [sampling_steps(found, None)]
    features = list(extractor.batches(real.images))
    truth = StatisticsAccumulator().add_all(features).result()
    rows, caution = [], truth.caution()
    for n in counts:
        images = sample_images(found, count, n, seed, partial(progress, n) if progress else None)
        own = StatisticsAccumulator().add_all(extractor.batches(images)).result()
        caution = caution or own.caution()
        rows.append(
            Row(
                checkpoint=str(found.folder),
                checkpoint_sha256=found.sha256,
                method=found.card.method if found.card else None,
                steps=n,
                distance=frechet_distance(own, truth),
            )
        )
    result = Evaluation(
        metric=f"fd_{extractor.name}",
        extractor_sha256=extractor.sha256,
        data=real.name,
        data_sha256=real.sha256,
        real_images=len(real.images),
        samples=count,
        seed=seed,
        floor=real_floor(np.concatenate(features), FLOOR_SEED),
        rows=tuple(rows),
        caution=caution,
    )
    if out is not None:
        write_model(out, result)
    return result
