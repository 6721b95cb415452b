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
    """A training run on disk.

    Attributes:
        folder: The folder of the run, which every function takes as a checkpoint.
        stopped: Where the run stopped when `max_minutes` were over; None if it is finished.
    """

    folder: Path
    stopped: str | None = None


def distill(
    out: AnyPath,
    *,
    preset: str | None = None,
    data: str | None = None,
    method: str | None = None,
    losses: str | None = None,
    sfddm_steps: int | None = None,
    subsequence: str | None = None,
    extractor_from: AnyPath | None = None,
    teacher: AnyPath | None = None,
    student: AnyPath | None = None,
    refine: bool = True,
    student_config: AnyPath | None = None,
    image_size: int | None = None,
    conditional: bool | None = None,
    seed: int | None = None,
    config: AnyPath | None = None,
    settings: Sequence[str] = (),
    start_from: AnyPath | None = None,
    minutes: float | None = None,
    max_minutes: float | None = None,
    save_seconds: float = 30.0,
    shard_mb: int = 1000,
    tensorboard: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> TrainingRun:
    """Train a one-step student: extractor, teacher, and students of fewer and fewer sampling steps.

    A run that was interrupted continues when it is called again with its folder; settings need not be repeated.

        run = rdd_edge.distill("runs/digits", preset="digits", seed=1)
        images = rdd_edge.sample(run.folder, n=16)

    Args:
        out: Folder of the run.
        preset: Settings to start from: digits, small, cifar10, cifar10-edge or imagenet64; by default those of the run
            in `out` or of `start_from`, else digits.
        data: "digits" or a path to images; by default the data of the preset.
        method: rdd, rcfd, pd, pd-lpips or sfddm; by default rdd.
        losses: Terms in place of a method, e.g. "cfd,ii_p2p".
        sfddm_steps: Sampling steps of an SFDDM student.
        subsequence: The teacher's steps that an SFDDM student keeps, e.g. "1,3,5,8".
        extractor_from: Extractor to take in place of training one: its folder, a training run, or a file with
            torchvision's weights of a ResNet or DenseNet.
        teacher: diffusers UNet2DModel folder with its scheduler, in place of training a teacher.
        student: One-step student to refine, in place of training one.
        refine: Whether the one-step student is refined with critics that see real images, if the preset has this stage.
        student_config: JSON file of a smaller student's network.
        image_size: Side of the square that images are cropped and resized to.
        conditional: Whether the model takes a class label; by default as the preset says.
        seed: Seed of every random draw.
        config: TOML file of settings, which the other arguments override; its key "preset" names the preset.
        settings: "KEY=VALUE" of the preset, e.g. "teacher.steps=100".
        start_from: Training run whose extractor, judge, teacher and base student are copied.
        minutes: Length of the whole training, over all calls; each stage's steps are chosen by its measured speed.
        max_minutes: Stop this call cleanly after so many minutes.
        save_seconds: Seconds between saved states: the most work that a kill may cost.
        shard_mb: Largest file of an unfinished stage's state, in MB.
        tensorboard: Also write scalars and image grids for TensorBoard.
        threads: CPU threads; by default PyTorch's.
        device: cpu or cuda; by default cuda where available.
    """
    from .dependencies import import_or_explain
    from .distillation.presets import resolve

    torch = import_or_explain("torch", "distillation", "distill")
    from .distillation.run_folder import inherited

    base = preset or inherited(Path(out), _path(start_from))
    chosen = resolve(
        base, data=data, image_size=image_size, method=method, losses=losses, seed=seed, settings=settings,
        sfddm_steps=sfddm_steps, subsequence=subsequence, extractor_from=_path(extractor_from),
        teacher=_path(teacher), student=_path(student), refine=refine,
        student_config=_path(student_config), conditional=conditional, config=_path(config),
    )  # fmt: skip
    from .distillation.run import distill as run
    from .distillation.trainer import OutOfTime

    if threads:
        torch.set_num_threads(threads)
    try:
        run(
            chosen, Path(out), start_from=_path(start_from), deadline=deadline_after(max_minutes), device=device,
            save_seconds=save_seconds, shard_mb=shard_mb, tensorboard=tensorboard, minutes=minutes,
        )  # fmt: skip
    except OutOfTime as stop:
        return TrainingRun(Path(out), str(stop))
    return TrainingRun(Path(out))


def sample(
    checkpoint: AnyPath,
    *,
    n: int = 64,
    seed: int = 0,
    steps: int | None = None,
    sampler: str | None = None,
    classes: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """Draw images of a checkpoint.

        images = rdd_edge.sample("runs/digits", n=16, seed=3)

    Args:
        checkpoint: Training run, diffusers folder, name of a shipped model, or Hugging Face Hub id.
        n: Number of images.
        seed: Seed of the sampling noise.
        steps: Number of sampling steps; by default those that the checkpoint was trained for.
        sampler: ddim, pndm or dpm-solver, which need no training; by default the method's own.
        classes: Names or indices of classes, which the images take in turn; by default all of a conditional model.

    Returns:
        Images (n, H, W, C).
    """
    import numpy as np

    from .diffusion.checkpoint import read_checkpoint
    from .diffusion.sampling import sample_images, sampling_steps
    from .distributed import gather_arrays, joined

    found = read_checkpoint(Path(checkpoint))
    labels = [found.label_of(name) for name in classes]
    with joined(None):
        images: NDArray[np.uint8] = np.concatenate(
            gather_arrays(sample_images(found, n, sampling_steps(found, steps), seed, sampler, labels))
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
    """Measure the quality of a checkpoint; or, with `reference`, of a benchmark run on the same noise.

        (row,) = rdd_edge.evaluate("runs/digits", n=2000).rows
        print(row.distance, row.neighbors.recall.value)
        print(rdd_edge.evaluate("bench/android-int8", reference="bench/server").psnr_float)

    Args:
        path: Checkpoint, training run, or benchmark run.
        reference: For a benchmark run: the one made with `device="server"`.
        n: Number of samples of a checkpoint.
        seed: Seed of a checkpoint's samples.
        steps: Numbers of sampling steps of a checkpoint, each measured; by default those it was trained for.
        sampler: ddim, pndm or dpm-solver, which need no training; by default the method's own.
        data: "digits" or a path to real images; by default the data of the training run.
        extractor: Folder of a classifier, "inception[:FILE]" or "resnet20:FILE"; by default the run's judge.
        out: JSON file for the result.

    Returns:
        The figures of a checkpoint with their intervals, or the scores of a benchmark run.
    """
    from .evaluation.sources import evaluation_sources

    destination = _path(out)
    if reference is not None:
        from .benchmarking.run import read_bench_run
        from .evaluation.scores import score

        trained = read_bench_run(Path(reference)).record.checkpoint
        real, network = evaluation_sources(Path(trained) if trained else None, data, extractor)
        return score(Path(path), Path(reference), real, network, destination)
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
    precision: str | Sequence[str] | None = None,
    backend: str | None = None,
    min_psnr: float | None = None,
    max_fd_rise: float | None = None,
    data: str | None = None,
    extractor: str | None = None,
    allow_low_parity: bool = False,
    prediction: str | None = None,
    timestep: int | None = None,
) -> list[Bundle]:
    """Build a bundle for each target, each checked by running its artifact.

        (bundle,) = rdd_edge.export("runs/digits", ["android"], "bundles", precision="int8")
        print(bundle.manifest.parity.psnr_db)

    Args:
        checkpoint: Training run, diffusers folder, name of a shipped model, or Hugging Face Hub id.
        targets: Names of targets: android, ios, jetson.
        out: Folder that gets one bundle per target and precision.
        precision: One or several that every target has, or "all"; by default each target's own.
        backend: Backend of the target, e.g. "vulkan" for an Android GPU; by default its first.
        min_psnr: Mixed precision: median PSNR to the student that must be kept, in dB.
        max_fd_rise: Mixed precision: largest relative rise of the Fréchet distance over the student's, e.g. 0.02.
        data: Real images for `max_fd_rise`; by default the data of the training run.
        extractor: Feature extractor for `max_fd_rise`; by default the run's judge.
        allow_low_parity: Also make a bundle whose images are further from the student's than its precision allows.
        prediction: What a one-step student of another tool predicts: epsilon, v or sample.
        timestep: At which timestep of its own schedule; by default the last.

    Returns:
        The bundles, in the order of the targets and, within one, of the precisions.
    """
    from .dependencies import import_or_explain

    import_or_explain("torch", "export", "distill")
    from .exporting.pipeline import export_bundles

    budget = _budget(Path(checkpoint), min_psnr, max_fd_rise, data, extractor)
    return export_bundles(
        Path(checkpoint), tuple(targets), precision, Path(out), budget=budget, backend=backend,
        allow_low_parity=allow_low_parity, prediction=prediction, timestep=timestep,
    )  # fmt: skip


def bench(
    source: AnyPath,
    out: AnyPath,
    *,
    device: str = "host",
    plan: Plan | None = None,
    quick: bool = False,
    runtime: str | None = None,
    apk: AnyPath | None = None,
    prediction: str | None = None,
    timestep: int | None = None,
) -> RunRecord:
    """Run an artifact as a device would and write a benchmark run.

        record = rdd_edge.bench("bundles/android-int8", "bench/android-int8", quick=True)
        print(sorted(record.latency_ms)[len(record.latency_ms) // 2], "ms")

    Args:
        source: Bundle; or, with `device="server"`, a checkpoint.
        out: Folder of the benchmark run.
        device: "host", "ssh://user@host[:port]", "adb://[serial]", "ios://[udid]", or "server" for a checkpoint in
            PyTorch.
        plan: What to run; by default the bundle's plan.
        quick: 128 timed inferences and 10 s in place of 1,024 and 60 s. Ignored where a plan is given.
        runtime: Over ssh: "tensorrt" or "onnxruntime"; by default tensorrt.
        apk: Over adb: the harness app, installed where the device has another one.
        prediction: With `device="server"`: what a one-step student of another tool predicts, as in `export`.
        timestep: With `device="server"`: its timestep, as in `export`.

    Returns:
        What was measured.
    """
    from .benchmarking.bench import bench as run
    from .benchmarking.bench import default_plan

    chosen = plan or default_plan(Path(source), quick=quick)
    return run(Path(source), device, Path(out), chosen, runtime, _path(apk), prediction, timestep)


def report(
    benches: Sequence[AnyPath],
    out: AnyPath = "report.html",
    *,
    baseline: AnyPath | None = None,
    scores: Sequence[AnyPath] = (),
    format: Literal["html", "md", "json"] | None = None,
) -> Path:
    """Write one self-contained page of benchmark runs and their scores.

        rdd_edge.report(["bench/android-int8", "bench/server"], "report.html")

    Args:
        benches: Benchmark runs.
        out: File to write: .html, .md or .json.
        baseline: Benchmark run that the other medians are divided by.
        scores: Results of `evaluate` for some of the runs; by default the scores.json in each run's folder.
        format: html, md or json; by default chosen by the file's suffix.

    Returns:
        The path of the file.
    """
    from .reporting.report import report as run

    run([Path(folder) for folder in benches], Path(out), _path(baseline), [Path(file) for file in scores], format)
    return Path(out)


def deadline_after(minutes: float | None) -> float:
    """`minutes` from now on the clock of time.monotonic; infinity for None."""
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
        raise UsageError("--min-psnr and --max-fd-rise cannot be combined: give one of them")
    if max_fd_rise is None:
        if data is not None or extractor is not None:
            raise UsageError("--data and --extractor are for the Fréchet distance of --max-fd-rise")
        return None if min_psnr is None else PsnrBudget(min_psnr)
    return FdBudget(max_fd_rise, *evaluation_sources(read_checkpoint(checkpoint).folder, data, extractor))
