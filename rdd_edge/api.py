"""The Python API: what the commands do, as functions. `import rdd_edge` offers them without importing torch.

Checkpoints are folders, the names of models that ship with the package, or Hugging Face Hub ids. Progress goes to the
reporter that `rdd_edge.console.reporting_to` has set; by default nothing is printed. Every function raises the errors
of `rdd_edge.errors` and nothing else on purpose.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from .errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .benchmarking.record import RunRecord
    from .bundle import Bundle, Plan
    from .evaluation.checkpoint import Evaluation
    from .evaluation.scores import Scores
    from .exporting.budget import Budget

__all__ = ["TrainingRun", "bench", "distill", "evaluate", "export", "report", "sample"]

AnyPath = str | PathLike[str]


@dataclass(frozen=True)
class TrainingRun:
    """The folder of a training run. `stopped` says where it stopped for lack of time; None: it is finished."""

    folder: Path
    stopped: str | None = None


def distill(
    out: AnyPath,
    *,
    preset: str = "digits",
    data: str | None = None,
    method: str | None = None,
    losses: str | None = None,
    sfddm_steps: int | None = None,
    subsequence: str | None = None,
    teacher: AnyPath | None = None,
    student_config: AnyPath | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    start_from: AnyPath | None = None,
    max_minutes: float | None = None,
    save_seconds: float = 30.0,
    shard_mb: int = 1000,
    tensorboard: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> TrainingRun:
    """Train a one-step student: extractor, teacher, and students of fewer and fewer sampling steps.

    A run that was interrupted continues when it is called again with the same arguments.

    out: folder of the run.  method: rdd, rcfd, pd, pd-lpips or sfddm.  losses: terms in place of a method, e.g.
    "cfd,ii_p2p".  settings: "KEY=VALUE" of the preset, e.g. "teacher.steps=100".  start_from: a run whose extractor,
    judge, teacher and base student are copied.  max_minutes: stop cleanly after that long.

        run = rdd_edge.distill("runs/digits", preset="digits", seed=1)
        images = rdd_edge.sample(run.folder, n=16)
    """
    from .dependencies import import_or_explain
    from .distillation.presets import resolve

    chosen = resolve(
        preset, data=data, image_size=image_size, method=method, losses=losses, seed=seed, settings=settings,
        sfddm_steps=sfddm_steps, subsequence=subsequence, teacher=_path(teacher), student_config=_path(student_config),
    )  # fmt: skip
    torch = import_or_explain("torch", "distillation", "distill")
    from .distillation.run import distill as run
    from .distillation.trainer import OutOfTime

    if threads:
        torch.set_num_threads(threads)
    try:
        run(
            chosen, Path(out), start_from=_path(start_from), deadline=deadline_after(max_minutes), device=device,
            save_seconds=save_seconds, shard_mb=shard_mb, tensorboard=tensorboard,
        )  # fmt: skip
    except OutOfTime as stop:
        return TrainingRun(Path(out), str(stop))
    return TrainingRun(Path(out))


def sample(
    checkpoint: AnyPath, *, n: int = 64, seed: int = 0, steps: int | None = None, sampler: str | None = None
) -> NDArray[np.uint8]:
    """Images (n, H, W, C) of a checkpoint, from the portable noise of `seed`.

    steps: number of sampling steps; by default those that the checkpoint was trained for.  sampler: ddim, pndm or
    dpm-solver, which need no training; by default the method's own.

        images = rdd_edge.sample("runs/digits", n=16, seed=3)
    """
    import numpy as np

    from .diffusion.checkpoint import read_checkpoint
    from .diffusion.sampling import sample_images, sampling_steps
    from .distributed import gather_arrays, joined

    found = read_checkpoint(Path(checkpoint))
    with joined(None):
        images: NDArray[np.uint8] = np.concatenate(
            gather_arrays(sample_images(found, n, sampling_steps(found, steps), seed, sampler))
        )
    return images


@overload
def evaluate(
    path: AnyPath,
    *,
    reference: None = None,
    n: int = 2000,
    seed: int = 0,
    steps: Sequence[int] = (),
    sampler: str | None = None,
    data: str | None = None,
    extractor: str | None = None,
    out: AnyPath | None = None,
) -> Evaluation: ...


@overload
def evaluate(
    path: AnyPath,
    *,
    reference: AnyPath,
    n: int = 2000,
    seed: int = 0,
    steps: Sequence[int] = (),
    sampler: str | None = None,
    data: str | None = None,
    extractor: str | None = None,
    out: AnyPath | None = None,
) -> Scores: ...


def evaluate(
    path: AnyPath,
    *,
    reference: AnyPath | None = None,
    n: int = 2000,
    seed: int = 0,
    steps: Sequence[int] = (),
    sampler: str | None = None,
    data: str | None = None,
    extractor: str | None = None,
    out: AnyPath | None = None,
) -> Evaluation | Scores:
    """Quality of a checkpoint; or, with `reference`, of a benchmark run against the server's on the same noise.

    n, seed, steps, sampler: the samples of a checkpoint; each number of steps is measured.  reference: a benchmark run
    made with device="server".  data, extractor: real images and the network whose features are compared; by default
    those of the training run.  out: JSON file for the result.

        print(rdd_edge.evaluate("runs/digits", n=2000).rows[0].distance)
        print(rdd_edge.evaluate("bench/android", reference="bench/server").psnr_float)
    """
    from .evaluation.sources import evaluation_sources

    destination = _path(out)
    if reference is not None:
        from .benchmarking.run import read_bench_run
        from .evaluation.scores import score

        trained = read_bench_run(Path(reference)).record.checkpoint
        real, network = evaluation_sources(Path(trained) if trained else None, data, extractor)
        return score(Path(path), Path(reference), real.images, network, destination)
    if (Path(path) / "record.json").is_file():
        raise UsageError(f"{path} is a benchmark run: give the server's run on the same noise as the reference")
    from .diffusion.checkpoint import read_checkpoint
    from .distributed import current, joined
    from .evaluation.checkpoint import evaluate as run
    from .evaluation.checkpoint import require_samples

    require_samples(n)
    with joined(None):
        with current().main_first():
            real, network = evaluation_sources(read_checkpoint(Path(path)).folder, data, extractor)
        return run(Path(path), steps, n, seed, real, network, destination, sampler)


def export(
    checkpoint: AnyPath,
    targets: Sequence[str],
    out: AnyPath,
    *,
    precision: str | None = None,
    backend: str | None = None,
    min_psnr: float | None = None,
    max_fd_rise: float | None = None,
    data: str | None = None,
    extractor: str | None = None,
) -> list[Bundle]:
    """Build a bundle for each target in the folder `out`, each checked by running its artifact.

    precision: one that every target has, or "all"; by default each target's own.  min_psnr, max_fd_rise: the quality
    that mixed precision has to keep, in dB to the student or as a relative rise of its Fréchet distance; `data` and
    `extractor` are those of that distance.

        (bundle,) = rdd_edge.export("runs/digits", ["android"], "bundles", precision="int8")
        print(bundle.manifest.parity.psnr_db)
    """
    from .dependencies import import_or_explain

    import_or_explain("torch", "export", "distill")
    from .exporting.pipeline import export_bundles

    budget = _budget(Path(checkpoint), min_psnr, max_fd_rise, data, extractor)
    return export_bundles(Path(checkpoint), tuple(targets), precision, Path(out), budget=budget, backend=backend)


def bench(
    source: AnyPath,
    out: AnyPath,
    *,
    device: str = "host",
    plan: Plan | None = None,
    quick: bool = False,
    runtime: str | None = None,
) -> RunRecord:
    """Run a bundle's artifact, or a checkpoint with device="server", and write its benchmark run to the folder `out`.

    device: "host", "ssh://user@host[:port]" or "server".  plan: by default the bundle's.  quick: 128 runs and 10 s in
    place of 1,024 runs and 60 s.  runtime: over ssh, "tensorrt" or "onnxruntime".

        record = rdd_edge.bench("bundles/android-int8", "bench/android-int8", quick=True)
        print(sorted(record.latency_ms)[len(record.latency_ms) // 2], "ms")
    """
    from .benchmarking.bench import bench as run
    from .benchmarking.bench import default_plan

    return run(Path(source), device, Path(out), plan or default_plan(Path(source), quick=quick), runtime)


def report(
    benches: Sequence[AnyPath],
    out: AnyPath = "report.html",
    *,
    baseline: AnyPath | None = None,
    scores: Sequence[AnyPath] = (),
    format: Literal["html", "md", "json"] | None = None,
) -> Path:
    """Write one self-contained page of benchmark runs and their scores; returns its path.

    baseline: a run that the other medians are divided by.  scores: files of `evaluate`; by default the scores.json in
    each run's folder.  format: by default told by the file's suffix.

        rdd_edge.report(["bench/android-int8", "bench/server"], "report.html")
    """
    from .reporting.report import report as run

    run([Path(folder) for folder in benches], Path(out), _path(baseline), [Path(file) for file in scores], format)
    return Path(out)


def deadline_after(minutes: float | None) -> float:
    """The moment on time.monotonic's clock that is so many minutes away; None: never."""
    return math.inf if minutes is None else time.monotonic() + 60 * minutes


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)


def _budget(
    checkpoint: Path, min_psnr: float | None, max_fd_rise: float | None, data: str | None, extractor: str | None
) -> Budget | None:
    """The budget of mixed precision. Raises UsageError for two, or where nothing says what the distance is to."""
    from .diffusion.checkpoint import read_checkpoint
    from .evaluation.sources import evaluation_sources
    from .exporting.budget import FdBudget, PsnrBudget

    if min_psnr is not None and max_fd_rise is not None:
        raise UsageError("--min-psnr and --max-fd-rise are two budgets for one search: give one of them")
    if max_fd_rise is None:
        if data is not None or extractor is not None:
            raise UsageError("--data and --extractor are for the Fréchet distance of --max-fd-rise")
        return None if min_psnr is None else PsnrBudget(min_psnr)
    return FdBudget(max_fd_rise, *evaluation_sources(read_checkpoint(checkpoint).folder, data, extractor))
