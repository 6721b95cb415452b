"""Quality of a checkpoint: the Fréchet distance of its samples in PyTorch to real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..data import ImageSet
from ..diffusion.checkpoint import read_checkpoint
from ..diffusion.sampling import sample_images, sampling_steps
from ..distributed import current
from ..errors import DataError, UsageError
from ..files import write_model
from ..metrics.extractors import Extractor
from ..metrics.frechet import Statistics, StatisticsAccumulator, frechet_distance, gather_statistics
from ..metrics.inception import Inception, metric_name
from ..metrics.inception_score import InceptionScore, InceptionScoreAccumulator, gather_score
from ..metrics.reference import reference_statistics
from ..schema import Frozen, Sha256, UInt64

SPLITS = 10  # of the Inception score
Number = Annotated[float, Field(allow_inf_nan=False)]


class Row(Frozen):
    """A checkpoint sampled in one number of steps."""

    checkpoint: str
    checkpoint_sha256: Sha256
    method: str | None
    steps: int = Field(ge=1)
    sampler: str | None = None  # one that needs no training; None: the checkpoint's own
    distance: Number
    inception_score: Number | None = None  # only with the Inception extractor; mean over SPLITS
    inception_spread: Number | None = None  # standard deviation over them


class Evaluation(Frozen):
    """Fréchet distances to the same real images, of samples 0 … samples - 1 of the noise of `seed`."""

    schema_version: Literal[1] = 1
    metric: str  # fd_<extractor>, or fid
    extractor_sha256: Sha256
    data: str
    data_sha256: Sha256
    real_images: int = Field(ge=2)
    samples: int = Field(ge=2)
    seed: UInt64
    floor: Number  # distance of a random half of the real images to the other half
    rows: tuple[Row, ...]
    caution: str | None

    def lines(self) -> list[str]:
        """The results as lines for a terminal."""
        lines = []
        for row in self.rows:
            score = ""
            if row.inception_score is not None:
                score = f"  Inception score {row.inception_score:.2f} ± {row.inception_spread:.2f}"
            name = row.sampler or row.method or "checkpoint"
            lines.append(f"{name:<10} {row.steps:>4} steps  {self.metric} {row.distance:.3f}{score}")
        lines.append(
            f"{'real':<10} {'':>10}  {self.metric} {self.floor:.3f}  (half of the real images against the other half)"
        )
        return [*lines, f"note: {self.caution}"] if self.caution else lines


def evaluate(
    checkpoint: Path,
    steps: Sequence[int],
    count: int,
    seed: int,
    real: ImageSet,
    extractor: Extractor,
    out: Path | None = None,
    sampler: str | None = None,
) -> Evaluation:
    """Evaluate a checkpoint in each number of sampling steps, by default the one that it was trained for.

    out: JSON file for the result.
    Under torchrun the processes share the work; each returns the whole result, and rank 0 writes it.
    Raises UsageError for real images of another shape, DataError for fewer than two samples, or for fewer than the
    splits of the Inception score.
    """
    student = read_checkpoint(checkpoint)
    require_samples(count)
    if isinstance(extractor, Inception):
        InceptionScoreAccumulator(count, SPLITS)  # refuses too few samples before any is drawn
    counts = [sampling_steps(student, n) for n in steps] or [sampling_steps(student, None)]
    if student.image_shape != real.image_shape:
        raise UsageError(
            f"{student.folder} makes images of shape {student.image_shape} (channels, height, width) and {real.name} "
            f"has {real.image_shape}: choose other --data"
        )
    truth, floor = reference_statistics(real, extractor)
    rows, caution = [], truth.caution()
    for n in counts:
        images = sample_images(student, count, n, seed, sampler)
        statistics, score = _measure(images, count, extractor)
        caution = caution or statistics.caution()
        rows.append(
            Row(
                checkpoint=str(student.folder),
                checkpoint_sha256=student.sha256,
                method=student.card.method if student.card else None,
                steps=n,
                sampler=sampler,
                inception_score=score.mean if score else None,
                inception_spread=score.spread if score else None,
                distance=frechet_distance(statistics, truth),
            )
        )
    result = Evaluation(
        metric=metric_name(extractor),
        extractor_sha256=extractor.sha256,
        data=real.name,
        data_sha256=real.sha256,
        real_images=len(real.images),
        samples=count,
        seed=seed,
        floor=floor,
        rows=tuple(rows),
        caution=caution,
    )
    if out is not None and current().is_main:
        write_model(out, result)
    return result


def require_samples(count: int) -> None:
    """Raises DataError for fewer samples than a covariance needs."""
    if count < 2:
        raise DataError(
            f"--n {count} is too few samples for a covariance: give at least two, better more than features"
        )


def _measure(images: NDArray[np.uint8], count: int, extractor: Extractor) -> tuple[Statistics, InceptionScore | None]:
    """Feature statistics, and with the Inception network its score, of the images of all processes."""
    statistics, first = StatisticsAccumulator(), current().blocks(count).start
    score = InceptionScoreAccumulator(count, SPLITS) if isinstance(extractor, Inception) else None
    for batch in extractor.batches(images):
        if score is not None and isinstance(extractor, Inception):
            score.add(first + statistics.count, extractor.probabilities(batch))
        statistics.add(batch)
    total = gather_score(score).result() if score else None
    return gather_statistics(statistics).result(), total
