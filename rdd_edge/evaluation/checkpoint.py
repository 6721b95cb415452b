"""Quality of a checkpoint: its samples in PyTorch against real images."""

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
from ..distributed import current, gather_arrays
from ..errors import DataError, UsageError
from ..files import write_model
from ..metrics.extractors import Extractor
from ..metrics.inception import Inception, metric_name
from ..metrics.inception_score import InceptionScore, InceptionScoreAccumulator, gather_score
from ..metrics.reference import SPLITS as FLOOR_SPLITS
from ..metrics.reference import real_reference, real_spacing
from ..schema import Frozen, Sha256, UInt64
from .sample_quality import LEAST, TITLES, Estimate, Neighbors, real_neighbors, sample_quality, table

SPLITS = 10  # of the Inception score
NOTE = (
    "±: half of the 95 % interval over the choice of samples; for the distance of real images, the standard deviation "
    f"over {FLOOR_SPLITS} random splits"
)
Number = Annotated[float, Field(allow_inf_nan=False)]


class Row(Frozen):
    """A checkpoint sampled in one number of steps."""

    checkpoint: str
    checkpoint_sha256: Sha256
    method: str | None
    steps: int = Field(ge=1)
    sampler: str | None = None  # one that needs no training; None: the checkpoint's own
    distance: Number
    distance_low: Number | None  # ends of the 95 % interval, over the choice of samples
    distance_high: Number | None
    neighbors: Neighbors
    inception_score: Number | None = None  # only with the Inception extractor; mean over SPLITS
    inception_spread: Number | None = None  # standard deviation over them

    @property
    def name(self) -> str:
        return self.sampler or self.method or "checkpoint"

    @property
    def text(self) -> str:
        """The distance ± half of its interval."""
        return Estimate(value=self.distance, low=self.distance_low, high=self.distance_high).text


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
    floor: Number  # mean distance of so many other real images; see `Reference.floor`
    floor_spread: Number  # standard deviation
    real: Neighbors  # the figures that other real images would have
    rows: tuple[Row, ...]
    caution: str | None

    def lines(self) -> list[str]:
        """The results as lines for a terminal."""
        head = ("", "steps", self.metric, *TITLES)
        rows = [(row.name, str(row.steps), row.text, *row.neighbors.texts()) for row in self.rows]
        real = ("real images", "", f"{self.floor:.3f} ± {self.floor_spread:.3f}", *self.real.texts())
        lines = [*table(head, [*rows, real]), NOTE]
        lines += [
            f"{row.name} {row.steps}: Inception score {row.inception_score:.2f} ± {row.inception_spread:.2f}"
            for row in self.rows
            if row.inception_score is not None
        ]
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
    Raises UsageError for real images of another shape, DataError for too few samples or real images.
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
    reference, spacing = real_reference(real, extractor), real_spacing(real)
    rows, caution = [], reference.statistics.caution()
    for n in counts:
        images = sample_images(student, count, n, seed, sampler)
        features, score = _features(images, count, len(reference.statistics.mean), extractor)
        found = sample_quality(np.concatenate(gather_arrays(images)), features, real, reference, spacing)
        caution = caution or found.statistics.caution()
        rows.append(
            Row(
                checkpoint=str(student.folder),
                checkpoint_sha256=student.sha256,
                method=student.card.method if student.card else None,
                steps=n,
                sampler=sampler,
                inception_score=score.mean if score else None,
                inception_spread=score.spread if score else None,
                distance=found.distance.value,
                distance_low=found.distance.low,
                distance_high=found.distance.high,
                neighbors=found.neighbors,
            )
        )
    floor, floor_spread = reference.floor(count)
    result = Evaluation(
        metric=metric_name(extractor),
        extractor_sha256=extractor.sha256,
        data=real.name,
        data_sha256=real.sha256,
        real_images=len(real.images),
        samples=count,
        seed=seed,
        floor=floor,
        floor_spread=floor_spread,
        real=real_neighbors(reference, spacing, count),
        rows=tuple(rows),
        caution=caution,
    )
    if out is not None and current().is_main:
        write_model(out, result)
    return result


def require_samples(count: int) -> None:
    """Raises DataError for fewer samples than the metrics need."""
    if count < LEAST:
        raise DataError(f"--n {count} is too few samples: give at least {LEAST}, better more than features")


def _features(
    images: NDArray[np.uint8], count: int, size: int, extractor: Extractor
) -> tuple[NDArray[np.float32], InceptionScore | None]:
    """Features (count, size), and with the Inception network its score, of the images of all processes."""
    done = current().blocks(count).start
    score = InceptionScoreAccumulator(count, SPLITS) if isinstance(extractor, Inception) else None
    parts = [np.zeros((0, size), np.float32)]  # this process may have no images
    for batch in extractor.batches(images):
        if score is not None and isinstance(extractor, Inception):
            score.add(done, extractor.probabilities(batch))
        parts.append(batch)
        done += len(batch)
    features = np.concatenate(gather_arrays(np.concatenate(parts)))
    return features, gather_score(score).result() if score else None
