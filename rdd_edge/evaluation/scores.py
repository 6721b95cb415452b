"""Quality of a benchmark run: its samples against the server's from the same noise, and both against real images.

PSNR is per image. The rise of the Fréchet distance over the student's, and the figures of fidelity, diversity and
copying, are given with confidence intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..benchmarking.isolation import run_artifact
from ..benchmarking.record import SERVER
from ..benchmarking.run import RECORD, SCORES, BenchRun, read_bench_run
from ..console import reporter
from ..data import ImageSet
from ..errors import CorruptError, RddEdgeError, UsageError
from ..files import sha256_of, write_model
from ..metrics.bootstrap import interval
from ..metrics.extractors import Extractor
from ..metrics.inception import metric_name
from ..metrics.reference import real_reference, real_spacing
from ..portable.noise import inputs, to_uint8
from ..portable.psnr import IDENTICAL_DB, psnr_per_image
from ..reading.documents import read_model
from ..schema import Count, Decibels, Frozen, Name, Number, Sha256, Text, UInt64, Version1
from ..targets.base import ExportSpec
from .diagnostics import Diagnosis, diagnose
from .sample_quality import LEAST, TITLES, Measure, Neighbors, real_neighbors, sample_quality, table

WORST = 8

Fraction = Annotated[float, Field(ge=0, le=1)]


class Worst(Frozen):
    """One of the images with the lowest PSNR."""

    index: Count
    psnr_db: Decibels


class Psnr(Frozen):
    """PSNR over images, in dB. An image identical to the server's counts as IDENTICAL_DB."""

    images: Count
    identical: Count
    median_db: Decibels
    worst_percent_db: Decibels  # 1st percentile: one image in a hundred is worse
    worst: tuple[Worst, ...]  # the worst first


class Distance(Frozen):
    """Fréchet distances to the same real images."""

    metric: Text  # fd_<extractor>, or fid
    extractor_sha256: Sha256
    real_images: Count
    artifact: Measure
    server: Measure
    floor: Measure  # mean distance of so many other real images; see `Reference.floor`
    floor_spread: Measure  # standard deviation
    rise: Number  # artifact - server
    rise_low: Number | None  # ends of the 95 % interval of the rise, over the choice of samples
    rise_high: Number | None
    caution: Text | None  # why these numbers may mislead


class NeighborScores(Frozen):
    """Fidelity, diversity and copying of both sides, and what other real images would have."""

    artifact: Neighbors
    server: Neighbors
    real: Neighbors


class Saturation(Frozen):
    """Fraction of the uint8 values that are 0 or 255."""

    artifact: Fraction
    server: Fraction
    real: Fraction


class Scores(Frozen):
    """Quality of one benchmark run. A field that could not be measured is null; `missing` gives the reason."""

    schema_version: Version1 = 1
    target: Name
    precision: Name
    record_sha256: Sha256  # of the record.json that was scored
    reference_sha256: Sha256  # of the server's
    checkpoint_sha256: Sha256
    samples: Count
    seed: UInt64 | None
    psnr_float: Psnr | None  # before rounding, peak 2.0
    psnr_uint8: Psnr | None  # peak 255
    distance: Distance | None
    neighbors: NeighborScores | None
    saturation: Saturation | None
    diagnoses: tuple[Diagnosis, ...]
    missing: dict[Text, Text]

    def lines(self, neighbors: bool = True) -> list[str]:
        """The scores as lines for a terminal.  neighbors: whether to show fidelity, diversity and copying as well."""
        name = f"{self.target} {self.precision}"
        lines = [f"{name}: {field} not measured: {reason}" for field, reason in self.missing.items()]
        if psnr := self.psnr_float or self.psnr_uint8:
            median, low = (
                f"{v:.1f} dB" if v < IDENTICAL_DB else "identical" for v in (psnr.median_db, psnr.worst_percent_db)
            )
            lines.append(f"{name}: PSNR to the student {median} median, {low} worst 1 %, of {psnr.images} images")
        if d := self.distance:
            spread = f" [{d.rise_low:+.4f} … {d.rise_high:+.4f}]" if d.rise_low is not None else ""
            lines.append(f"{name}: {d.metric} {d.artifact:.3f}, student {d.server:.3f}; rise {d.rise:+.4f}{spread}")
            lines.append(f"{name}: {d.metric} {d.floor:.3f} ± {d.floor_spread:.3f} of other real images")
            lines += [f"note: {d.caution}"] if d.caution else []
        if self.neighbors and neighbors:
            sides = {name: self.neighbors.artifact, "student": self.neighbors.server, "real": self.neighbors.real}
            lines += table(("", *TITLES), [(side, *one.texts()) for side, one in sides.items()])
        return lines + [f"{name}: {diagnosis.name}: {diagnosis.sentence}" for diagnosis in self.diagnoses]


def score(bench: Path, reference: Path, real: ImageSet, extractor: Extractor, out: Path | None = None) -> Scores:
    """Score a benchmark run against the server's on the same noise.

    bench, reference: folders of the two runs.  out: JSON file for the scores.
    Raises UsageError where the two cannot be compared, MissingError and CorruptError as read_bench_run does.
    """
    run, server = read_bench_run(bench), read_bench_run(reference)
    _check_comparable(run, server)
    samples = run.record.samples
    common = {
        "target": run.record.target,
        "precision": run.record.precision,
        "record_sha256": sha256_of(bench / RECORD),
        "reference_sha256": sha256_of(reference / RECORD),
        "checkpoint_sha256": run.record.checkpoint_sha256,
        "samples": samples.count if samples else 0,
        "seed": samples.seed if samples else None,
    }
    scores = Scores.model_validate(common | _quality(run, server, real, extractor))
    if out is not None:
        write_model(out, scores)
    return scores


def read_scores(bench: Path) -> Scores | None:
    """The scores beside a benchmark run, if there are any. Raises CorruptError for those of another record."""
    path = bench / SCORES
    if not path.is_file():
        return None
    scores = read_model(path, Scores)
    if scores.record_sha256 != sha256_of(bench / RECORD):
        raise CorruptError(f"{path} belongs to another record than the one beside it: evaluate the run again")
    return scores


def _check_comparable(run: BenchRun, server: BenchRun) -> None:
    a, b = run.record, server.record
    if not server.is_server:
        raise UsageError(f"{server.folder} is a run of {b.target}: the reference has to be one of --device {SERVER}")
    if b.samples is None:
        raise UsageError(f"the reference {server.folder} has no samples: {b.missing['samples']}")
    if a.checkpoint_sha256 != b.checkpoint_sha256:
        raise UsageError(f"{run.folder} and {server.folder} are of different checkpoints and cannot be compared")
    if a.samples is None:
        return
    for name, x in a.samples.noise.items():
        if x != (y := b.samples.noise[name]):
            raise UsageError(
                f"{run.folder} and {server.folder} cannot be compared: the {name} of their samples is {x} and {y}"
            )


def _quality(run: BenchRun, server: BenchRun, real: ImageSet, extractor: Extractor) -> dict[str, object]:
    """The fields of Scores that need images."""
    measured = ("psnr_float", "psnr_uint8", "distance", "neighbors", "saturation")
    if run.record.samples is None:
        nulls: dict[str, object] = dict.fromkeys(measured)
        return nulls | {"diagnoses": (), "missing": dict.fromkeys(measured, run.record.missing["samples"])}
    images, reference = run.images(), server.images()
    if images.shape[1:] != real.images.shape[1:]:
        raise UsageError(
            f"the samples have shape {images.shape[1:]} (H, W, C) and the images of {real.name} "
            f"{real.images.shape[1:]}: choose other --data"
        )
    missing: dict[str, str] = {}
    floats = min(len(run.floats()), len(server.floats()))
    if not floats:
        missing["psnr_float"] = "one of the two runs has no samples before rounding"
    distance = neighbors = None
    if len(images) < LEAST:
        why = f"{len(images)} samples are too few: benchmark with at least {LEAST}"
        missing |= dict.fromkeys(("distance", "neighbors"), why)
    else:
        distance, neighbors = _against_real(images, reference, real, extractor)
    return {
        "psnr_float": _psnr(run.floats()[:floats], server.floats()[:floats], 2.0) if floats else None,
        "psnr_uint8": _psnr(images, reference, 255.0),
        "distance": distance,
        "neighbors": neighbors,
        "saturation": Saturation(
            artifact=_saturated(images), server=_saturated(reference), real=_saturated(real.images)
        ),
        "diagnoses": diagnose(images, run.floats(), reference, _student(server), run.record.samples.seed),
        "missing": missing,
    }


def _psnr(a: NDArray[np.generic], b: NDArray[np.generic], peak: float) -> Psnr:
    values = psnr_per_image(a, b, peak)
    order = np.argsort(values, kind="stable")[:WORST]
    return Psnr(
        images=len(values),
        identical=int(np.sum(values == IDENTICAL_DB)),
        median_db=float(np.median(values)),
        worst_percent_db=float(np.percentile(values, 1)),
        worst=tuple(Worst(index=int(i), psnr_db=float(values[i])) for i in order),
    )


def _against_real(
    images: NDArray[np.uint8], reference: NDArray[np.uint8], real: ImageSet, extractor: Extractor
) -> tuple[Distance, NeighborScores]:
    truth, spacing = real_reference(real, extractor), real_spacing(real)
    a = sample_quality(images, _features(extractor, images, "artifact"), real, truth, spacing)
    b = sample_quality(reference, _features(extractor, reference, "server"), real, truth, spacing)
    rise = a.distance.value - b.distance.value
    spread = None if a.influences is None or b.influences is None else interval(a.influences - b.influences)
    floor, floor_spread = truth.floor(len(images))
    distance = Distance(
        metric=metric_name(extractor),
        extractor_sha256=extractor.sha256,
        real_images=len(real.images),
        artifact=a.distance.value,
        server=b.distance.value,
        floor=floor,
        floor_spread=floor_spread,
        rise=rise,
        rise_low=rise + spread[0] if spread else None,
        rise_high=rise + spread[1] if spread else None,
        caution=a.statistics.caution(),
    )
    real_figures = real_neighbors(truth, spacing, len(images))
    return distance, NeighborScores(artifact=a.neighbors, server=b.neighbors, real=real_figures)


def _features(extractor: Extractor, images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    parts, done = [], 0
    reporter().begin(f"features of the {name} images", len(images), unit="images")
    for part in extractor.batches(images):
        parts.append(part)
        done += len(part)
        reporter().advance(done)
    reporter().end()
    return np.concatenate(parts)


def _saturated(images: NDArray[np.uint8]) -> float:
    return (np.count_nonzero(images == 0) + np.count_nonzero(images == 255)) / images.size


def _student(server: BenchRun) -> Callable[[int, int], NDArray[np.uint8]] | None:
    """The server's student on another seed, if its checkpoint still exists and is the one that was run."""
    from ..diffusion.checkpoint import read_checkpoint

    if server.record.checkpoint is None:
        return None
    try:
        checkpoint = read_checkpoint(Path(server.record.checkpoint))
    except (RddEdgeError, OSError):
        return None  # removed or changed since: a wrong seed is then diagnosed as "other noise"
    if checkpoint.sha256 != server.record.checkpoint_sha256:
        return None

    def images(seed: int, count: int) -> NDArray[np.uint8]:
        z, label = inputs(seed, range(count), checkpoint.image_shape, checkpoint.classes)
        spec = ExportSpec("fp32", (count, *checkpoint.image_shape), checkpoint.classes)
        x = run_artifact(SERVER, checkpoint.folder, spec, 1, z, label)
        assert x is not None  # PyTorch runs wherever an evaluation does
        return to_uint8(x)

    return images
