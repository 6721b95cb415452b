"""The commands. Each reads its arguments, calls one function of the library and prints; heavy imports stay inside."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .errors import RddEdgeError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="rdd-edge",
    help="Distil a diffusion model to one step, export it to phones and Jetson boards, and measure it there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Checkpoint = Annotated[
    Path,
    typer.Argument(
        help="a training run (its one-step student), a diffusers UNet2DModel folder or a shipped model's name"
    ),
]
Data = Annotated[str | None, typer.Option(help='"digits" or a path to images; default: what the run was trained on')]
Extractor = Annotated[
    str | None,
    typer.Option(help="folder of an extractor, inception[:FILE] for FID, or resnet20:FILE; default: the run's judge"),
]
SamplesOfEach = Annotated[int, typer.Option("--n", "-n", min=2, help="number of samples of each; under torchrun as -n")]
Seed = Annotated[int, typer.Option(min=0, help="of the portable noise")]


@app.command()
def distill(
    out: Annotated[Path, typer.Option(help="folder of the run; the same command continues it")],
    preset: Annotated[str, typer.Option(help="settings to start from")] = "digits",
    data: Annotated[str | None, typer.Option(help='"digits" or a path to images; default: the preset\'s')] = None,
    method: Annotated[
        str | None, typer.Option(help="rdd, rcfd, pd or pd-lpips, below the base step count; or sfddm")
    ] = None,
    losses: Annotated[str | None, typer.Option(help="terms in place of a method, as cfd,ii_p2p")] = None,
    sfddm_steps: Annotated[int | None, typer.Option(min=1, help="of SFDDM's student; default: 1")] = None,
    subsequence: Annotated[
        str | None, typer.Option(help="SFDDM's indices of the teacher's steps, as 1,5,20,32; default: even")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="a diffusers UNet2DModel folder with its scheduler, in place of training one")
    ] = None,
    student_config: Annotated[
        Path | None, typer.Option(help='JSON of a smaller student, as {"channels": [16, 32], "blocks": 1, "groups": 8}')
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="side that images are cropped and resized to; default: the preset's")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of every random draw of the run")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="a run whose extractor, judge, teacher and base are taken")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the preset, as teacher.steps=100")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="stop cleanly after that long")] = None,
    save_seconds: Annotated[float, typer.Option(min=0, help="how much work a kill may cost")] = 30.0,
    shard_mb: Annotated[
        int, typer.Option(min=1, help="most megabytes of a file of an unfinished stage's state")
    ] = 1000,
    tensorboard: Annotated[
        bool, typer.Option(help="scalars and grids of samples for TensorBoard under OUT/tensorboard")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="of the CPU")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one")] = None,
) -> None:
    """Train extractor, teacher, and students of fewer and fewer steps, down to one."""
    from .checkpoint import read_checkpoint
    from .config import resolve
    from .console import ConsoleReporter
    from .quiet import import_or_explain

    chosen = resolve(
        preset, data=data, image_size=image_size, method=method, losses=losses, seed=seed, settings=set_ or [],
        sfddm_steps=sfddm_steps, subsequence=subsequence, teacher=teacher, student_config=student_config,
    )  # fmt: skip
    torch = import_or_explain("torch", "distillation", "distill")
    from .distill.loop import OutOfTime
    from .distill.run import distill as run

    if threads:
        torch.set_num_threads(threads)
    first = os.environ.get("RANK", "0") == "0"  # of the processes under torchrun, the one that speaks
    deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else float("inf")
    try:
        with ConsoleReporter(silent=not first) as reporter:
            run(
                chosen, out, reporter, start_from=start_from, deadline=deadline, device=device,
                save_seconds=save_seconds, shard_mb=shard_mb, tensorboard=tensorboard,
            )  # fmt: skip
    except OutOfTime as stop:
        if first:
            typer.echo(f"{stop}: the same command continues it")
        return
    if first:
        typer.echo(f"{out}: the student is {read_checkpoint(out).folder}")


@app.command()
def compact(
    run: Annotated[Path, typer.Argument(help="a training run, finished or not")],
    out: Annotated[Path, typer.Option(help="folder of the small run; the command that made RUN continues it there")],
    shard_mb: Annotated[int, typer.Option(min=1, help="most megabytes of a file of an unfinished stage")] = 1000,
) -> None:
    """Copy what continuing a run needs, in half precision and without optimizers: to carry it to another machine."""
    from .quiet import import_or_explain

    import_or_explain("torch", "reading a run", "distill")
    from .distill.compact import compact as run_compact

    small = run_compact(run, out, shard_mb * 1_000_000)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB, {small.compacted[-1]}")


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="a training run; its student is packed")],
    name: Annotated[str, typer.Option(help="of the model")],
    out: Annotated[Path, typer.Option(help="the model's folder")],
    dtype: Annotated[str, typer.Option(help="of the weights' file: bfloat16 or float16")] = "bfloat16",
    n: Annotated[int, typer.Option(min=2, help="number of samples of each metric")] = 10_000,
    seed: Seed = 0,
    data: Data = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option(help="as evaluate's; may be given again for a metric each; default: the run's judge"),
    ] = None,
) -> None:
    """Make a run's student a model to ship: half the size, measured as it is then, with a card beside it."""
    from .console import counter
    from .quiet import import_or_explain

    import_or_explain("torch", "packing a model", "distill")
    from .checkpoint import WEIGHTS
    from .model_card import CARD_FILE
    from .pack import pack as run_pack

    with counter("sampling", n) as done:
        found = run_pack(run, name, out, cast("Any", dtype), n, seed, data, extractor or [], done)
    for evaluation in found:
        typer.echo(f"{evaluation.metric} {evaluation.rows[0].distance:.3f}  (real against real {evaluation.floor:.3f})")
    typer.echo(f"{out}: {(out / WEIGHTS).stat().st_size / 1e6:.1f} MB, {out / CARD_FILE}")


@app.command()
def sample(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="PNG of a grid of the images")],
    n: Annotated[int, typer.Option("--n", "-n", help="number of images; under torchrun as -n")] = 64,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="sampling steps; default: what it was trained for")] = None,
) -> None:
    """Draw images of a checkpoint."""
    import numpy as np

    from .checkpoint import read_checkpoint
    from .console import counter
    from .grid import save_grid
    from .sampling import sample_images, sampling_steps

    found = read_checkpoint(checkpoint)
    from .distill.world import joined
    from .metrics.sharded import gather_arrays, shard_blocks

    with joined(None) as (world, _):
        with counter("sampling", len(shard_blocks(n, world.share)), silent=not world.writes) as done:
            own = sample_images(found, n, sampling_steps(found, steps), seed, done, share=world.share)
        images = gather_arrays(own, world.share)
    if world.writes:
        save_grid(np.concatenate(images), out)
        typer.echo(f"{out}: {n} images")


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(help="a checkpoint, a training run, or a bench run")],
    out: Annotated[Path | None, typer.Option(help="JSON of the result")] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="number of samples of a checkpoint; under torchrun as -n")] = 2000,
    steps: Annotated[list[int] | None, typer.Option(help="sampling steps of a checkpoint; may be given again")] = None,
    seed: Seed = 0,
    reference: Annotated[Path | None, typer.Option(help="of a bench run: the server's, on the same noise")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="ddim, pndm or dpm-solver, training-free; default: the method's own")
    ] = None,
    data: Data = None,
    extractor: Extractor = None,
) -> None:
    """Measure quality: a checkpoint's samples against real images, or a bench run's against the server's too."""
    if (path / "record.json").is_file():
        _evaluate_bench(path, reference, data, extractor, out)
    elif reference is not None:
        raise UsageError("--reference goes with a bench run, and a checkpoint needs none")
    else:
        _evaluate_checkpoint(path, steps or [], n, seed, data, extractor, out, sampler)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="training runs; those of one method are its repetitions")],
    out: Annotated[Path | None, typer.Option(help="the table as .md or .json")] = None,
    grid: Annotated[Path | None, typer.Option(help="PNG with a row of images per method and step count")] = None,
    n: SamplesOfEach = 2000,
    seed: Seed = 0,
    data: Data = None,
    extractor: Extractor = None,
) -> None:
    """Put training runs side by side: method × steps, and their images from the same noise."""
    from .compare_methods import compare as run
    from .compare_methods import draw_comparison
    from .console import stages
    from .distill.world import joined

    with joined(None) as (world, _), stages("compare", silent=not world.writes) as stage:
        found = run(runs, n, seed, out, data, extractor, lambda name, done: stage(f"{name} {done}"), world.share)
    if not world.writes:
        return
    typer.echo(found.markdown(), nl=False)
    if grid is not None:
        typer.echo(f"{grid}: rows from the top: {', '.join(draw_comparison(found, grid))}")


@app.command()
def study(
    vary: Annotated[str, typer.Option(help="tau_is, tau_m, queue, v, alpha, beta or batch")],
    values: Annotated[str, typer.Option(help="of it, as 0.5,0.7,1")],
    out: Annotated[Path, typer.Option(help="folder of the study; the same command continues it")],
    preset: Annotated[str, typer.Option(help="settings to start from")] = "digits",
    data: Annotated[str | None, typer.Option(help='"digits" or a path to images; default: the preset\'s')] = None,
    method: Annotated[str | None, typer.Option(help="rdd, rcfd, pd or pd-lpips")] = None,
    start_from: Annotated[Path | None, typer.Option(help="a run whose extractor, teacher and base are taken")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the preset")] = None,
    n: SamplesOfEach = 2000,
    seed: Seed = 0,
    extractor: Extractor = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="stop cleanly after that long")] = None,
) -> None:
    """Vary one setting of a single fold: a table and a plot."""
    from .config import resolve
    from .console import ConsoleReporter
    from .study import study as run

    chosen = resolve(preset, data=data, method=method, settings=set_ or [])
    try:
        numbers = [float(word) for word in values.split(",")]
    except ValueError:
        raise UsageError(f"--values {values} is not a list of numbers, as 0.5,0.7,1") from None
    from .distill.loop import OutOfTime
    from .distill.world import joined

    deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else float("inf")
    first = os.environ.get("RANK", "0") == "0"
    try:
        with joined(None) as (world, _), ConsoleReporter(silent=not first) as reporter:
            found = run(
                chosen, vary, numbers, out, reporter, start_from=start_from, count=n, seed=seed,
                extractor=extractor, deadline=deadline, share=world.share,
            )  # fmt: skip
    except OutOfTime as stop:
        if first:
            typer.echo(f"{stop}: the same command continues it")
        return
    if first:
        typer.echo(found.markdown(), nl=False)
        typer.echo(f"{out / 'study.svg'}: the plot")


def _evaluate_checkpoint(
    path: Path, steps: list[int], n: int, seed: int, data: str | None, extractor: str | None, out: Path | None,
    sampler: str | None,
) -> None:  # fmt: skip
    from .checkpoint import read_checkpoint
    from .console import counter
    from .evaluate import evaluate as run
    from .metrics.sources import evaluation_sources

    if n < 2:
        raise UsageError(f"--n {n} is too few images for a distance: give at least 2")
    folder = read_checkpoint(path).folder
    from .distill.world import joined
    from .metrics.sharded import shard_blocks

    with joined(None) as (world, _):
        with world.first():
            real, judge = evaluation_sources(folder, data, extractor)
        with counter("sampling", len(shard_blocks(n, world.share)), silent=not world.writes) as done:
            result = run(path, steps, n, seed, real, judge, out, lambda _, k: done(k), sampler, world.share)
    if not world.writes:
        return
    for row in result.rows:
        score = "" if row.inception_score is None else f"  is {row.inception_score:.2f} ± {row.inception_spread:.2f}"
        name = row.sampler or row.method or "checkpoint"
        typer.echo(f"{name:<10} {row.steps:>4} steps  {result.metric} {row.distance:.3f}{score}")
    typer.echo(f"{'real':<10} {'':>10}  {result.metric} {result.floor:.3f}  (half of the data against the other half)")
    if result.caution:
        typer.echo(f"note: {result.caution}")


def _evaluate_bench(
    path: Path, reference: Path | None, data: str | None, extractor: str | None, out: Path | None
) -> None:
    from .metrics.sources import evaluation_sources
    from .runs import read_run
    from .scores import score

    if reference is None:
        raise UsageError("a bench run is held against the server's: give --reference SERVER_BENCH")
    trained = read_run(reference).record.checkpoint
    real, judge = evaluation_sources(Path(trained) if trained else None, data, extractor)
    for line in score(path, reference, real.images, judge, out).lines():
        typer.echo(line)


@app.command()
def export(
    checkpoint: Checkpoint,
    target: Annotated[list[str], typer.Option(help="android, ios or jetson; may be given again")],
    out: Annotated[Path, typer.Option(help="folder that gets one bundle per target and precision")],
    precision: Annotated[
        str | None,
        typer.Option(help="one that every target has, or all; default: android fp32, ios fp16, jetson fp16"),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="of the target, as vulkan for android's GPU; default: its first")
    ] = None,
    min_psnr: Annotated[float | None, typer.Option(help="budget of mixed precision: median PSNR in dB")] = None,
    max_fd_rise: Annotated[
        str | None,
        typer.Option(help="budget of mixed precision: rise of the Fréchet distance over the student's, as 2%"),
    ] = None,
    data: Data = None,
    extractor: Extractor = None,
) -> None:
    """Build a bundle for each target, or one for each of its precisions, each proven on its artifact."""
    from .console import timed_stages
    from .quiet import import_or_explain

    import_or_explain("torch", "export", "distill")
    from .export.budget import budget_of
    from .export.pipeline import Event, export_bundles

    budget = budget_of(checkpoint, min_psnr, max_fd_rise, data, extractor)
    with timed_stages("export") as stage:

        def show(event: Event) -> None:
            name = "-".join(part for part in (event.target, event.precision) if part)
            if event.stage in ("found", "kept", "done"):
                stage("")
                typer.echo(f"{out / name}: {event.detail}", err=event.stage == "found")
            else:
                detail = event.detail if event.stage == "search" else ""
                stage(" ".join(part for part in (name, event.stage, detail) if part))

        export_bundles(checkpoint, tuple(target), precision, out, show, budget=budget, backend=backend)


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(help="a bundle")]) -> None:
    """Run a bundle's saved bytes against its parity vectors and its runtime's rules; fail under its threshold."""
    from .verify import verify_bundle

    found = verify_bundle(bundle)
    name = f"{found.target} {found.precision}"
    if found.psnr_db is None:
        typer.echo(f"{name}: hashes hold; not run here: {found.reason}")
    else:
        typer.echo(
            f"{name}: {found.psnr_db:.1f} dB median, {found.worst_psnr_db:.1f} dB worst; {found.threshold_db:g} asked"
        )
    for tensor, magnitude in found.largest.items():
        typer.echo(f"  largest float16 magnitude {magnitude:.4g} in {tensor}")


@app.command()
def bench(
    source: Annotated[Path, typer.Argument(help="a bundle, or for --device server a checkpoint")],
    out: Annotated[Path, typer.Option(help="folder of the bench run")],
    device: Annotated[
        str, typer.Option(help="host, ssh://user@host[:port], or server for a checkpoint in PyTorch")
    ] = "host",
    quick: Annotated[bool, typer.Option(help="128 timed runs and 10 s in place of 1024 and 60 s")] = False,
    runtime: Annotated[
        str | None, typer.Option(help="over ssh: tensorrt or onnxruntime; default: tensorrt, as a Jetson has it")
    ] = None,
    n: Annotated[int | None, typer.Option(help="samples of the accuracy run")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the samples' noise")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="least number of timed runs")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="least time of timed runs")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="of the CPU")] = None,
) -> None:
    """Run an artifact as a device would: record and samples."""
    from .bench import bench as run
    from .bench import default_plan
    from .console import stages
    from .results import summary

    plan = default_plan(source, quick=quick).changed(samples=n, seed=seed, runs=runs, seconds=seconds, threads=threads)
    with stages(f"bench {source.name}") as stage:
        record = run(source, device, out, plan, lambda name, done: stage(f"{name} {done or ''}"), runtime)
    found = summary(record)
    if found is None:
        typer.echo(f"{out}: latency not measured: {record.missing.get('latency_ms', 'no reason given')}")
    else:
        typer.echo(f"{out}: {found.median:.3f} ms median, {found.p90:.3f} ms p90 of {found.runs} runs")


@app.command()
def report(
    benches: Annotated[list[Path], typer.Argument(help="bench runs")],
    out: Annotated[Path, typer.Option(help="the page to write: .html or .md")] = Path("report.html"),
    scores: Annotated[
        list[Path] | None, typer.Option(help="files of `evaluate BENCH`; default: each BENCH/scores.json")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="html, md or json; default: by the file's ending")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="the server's bench run that the others are held against")
    ] = None,
) -> None:
    """Make one self-contained page of bench runs and their scores."""
    from .report import report as run

    run(benches, out, baseline, scores or (), cast("Any", form))
    typer.echo(f"{out}: {len(benches)} bench runs")


@app.command()
def compare_bench(
    before: Annotated[Path, typer.Argument(help="the bench run to hold against")],
    after: Annotated[Path, typer.Argument(help="the new bench run")],
    max_slower: Annotated[str | None, typer.Option(help="allowed rise of the median latency, as 5%")] = None,
    max_fd_rise: Annotated[str | None, typer.Option(help="allowed rise of the Fréchet distance, as 2%")] = None,
) -> None:
    """Hold a bench run against an older one; exit non-zero on a regression."""
    from .compare import compare_runs, share

    limits = [None if text is None else share(text) for text in (max_slower, max_fd_rise)]
    found = compare_runs(before, after, *limits)
    for change in found.changes:
        typer.echo(str(change))
    found.check()


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="folder for everything it makes")] = Path("runs/quickstart"),
) -> None:
    """Train on digits, export to every target, bench, score, and make the page: all on this machine."""
    from .quickstart import quickstart as run

    run(out)


@app.command()
def doctor() -> None:
    """Say which targets, runtimes and tools this machine has, and how to get the others."""
    from .doctor import doctor as run

    for row in run():
        typer.echo(str(row))


def main() -> None:
    """Run the command line: errors of ours become one sentence on stderr and the exit code of their kind."""
    try:
        app()
    except RddEdgeError as error:
        typer.echo(f"rdd-edge: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("rdd-edge: interrupted", err=True)
        sys.exit(130)
