"""Commands that sample and measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..errors import UsageError
from .options import (
    MOST_SAMPLES,
    MOST_SEED,
    Checkpoint,
    Data,
    Extractor,
    Prediction,
    Samples,
    Seed,
    Timestep,
    finite,
    is_main_process,
    parse_fraction,
)


def sample(
    checkpoint: Checkpoint,
    out: Annotated[Path, Option(dir_okay=False, help="PNG file for a grid of the images.")],
    n: Annotated[int, Option("--n", "-n", min=1, max=MOST_SAMPLES, help="Number of images.")] = 64,
    seed: Seed = 0,
    steps: Annotated[
        int | None, Option(min=1, max=1000, help="Sampling steps.  Default: those it was trained for.")
    ] = None,
    class_: Annotated[
        list[str] | None,
        Option("--class", metavar="NAME|INDEX", help="Class to draw; may be repeated.  Default: all classes in turn."),
    ] = None,
) -> None:
    """Draw images of a checkpoint as a grid.

    A column of a class-conditional model's grid has the images of one class, with its name above.

    \b
    Examples:
      rdd-edge sample runs/digits --n 64 --seed 0 --out grid.png
      rdd-edge sample runs/photos --class cats --class dogs --out cats-and-dogs.png
    """
    from ..api import sample as run
    from ..console import ConsoleReporter
    from ..diffusion.checkpoint import read_checkpoint
    from ..drawing.grid import save_grid

    with ConsoleReporter():
        images = run(checkpoint, n=n, seed=seed, steps=steps, classes=class_ or ())
    if is_main_process():
        names = read_checkpoint(checkpoint).names_of(class_ or ())
        save_grid(images, out, len(names) if 1 < len(names) <= n else None, names)
        typer.echo(f"{out}: {n} images")


def evaluate(
    path: Annotated[Path, Argument(help="Checkpoint, training run, or benchmark run.")],
    out: Annotated[Path | None, Option(dir_okay=False, help="JSON file for the result.")] = None,
    n: Annotated[int, Option("--n", "-n", min=2, max=MOST_SAMPLES, help="Number of samples of a checkpoint.")] = 2000,
    steps: Annotated[
        list[int] | None,
        Option(
            min=1, max=1000, help="Sampling steps of a checkpoint; may be repeated.  Default: those it was trained for."
        ),
    ] = None,
    seed: Seed = 0,
    reference: Annotated[
        Path | None, Option(help="For a benchmark run: the server's run on the same noise (bench --device server).")
    ] = None,
    sampler: Annotated[
        str | None, Option(help="Sampler that needs no training: ddim, pndm or dpm-solver.  Default: the method's own.")
    ] = None,
    data: Data = None,
    extractor: Extractor = None,
) -> None:
    """Measure the quality of a checkpoint or of a benchmark run.

    A checkpoint's samples are compared with real images: Fréchet distance, precision, recall, density, coverage and
    near copies. A benchmark run's are also compared with the server's samples from the same noise.

    \b
    Examples:
      rdd-edge evaluate runs/digits
      rdd-edge evaluate runs/digits/teacher --steps 8 --steps 32 --sampler ddim
      rdd-edge evaluate bench/android --reference bench/server --out bench/android/scores.json
    """
    from ..api import evaluate as run
    from ..console import ConsoleReporter

    is_bench = (path / "record.json").is_file()
    if reference is not None and not is_bench:
        raise UsageError("--reference is for benchmark runs: a checkpoint needs none")
    if is_bench and reference is None:
        raise UsageError("a benchmark run is compared with the server's: give --reference SERVER_BENCH")
    with ConsoleReporter():
        if reference is not None:
            lines = run(path, reference=reference, data=data, extractor=extractor, out=out).lines()
        else:
            lines = run(
                path, n=n, seed=seed, steps=steps or (), sampler=sampler, data=data, extractor=extractor, out=out
            ).lines()
    if is_main_process():
        typer.echo("\n".join(lines))


def bench(
    source: Annotated[Path, Argument(help="Bundle, or with --device server a checkpoint.")],
    out: Annotated[Path, Option(file_okay=False, help="Folder of the benchmark run.")],
    device: Annotated[
        str,
        Option(
            help="Where to run: host, ssh://user@host\\[:port], adb://\\[serial] or ios://\\[udid]; server for a "
            "checkpoint in PyTorch."
        ),
    ] = "host",
    quick: Annotated[bool, Option("--quick", help="128 timed runs and 10 s in place of 1,024 runs and 60 s.")] = False,
    runtime: Annotated[str | None, Option(help="Over ssh: tensorrt or onnxruntime.  Default: tensorrt.")] = None,
    apk: Annotated[
        Path | None,
        Option(dir_okay=False, help="Over adb: the harness app, installed where the device has another one."),
    ] = None,
    n: Annotated[int | None, Option("--n", "-n", min=0, max=MOST_SAMPLES, help="Number of samples.")] = None,
    seed: Annotated[int | None, Option(min=0, max=MOST_SEED, help="Seed of the sampling noise.")] = None,
    runs: Annotated[int | None, Option(min=1, max=MOST_SAMPLES, help="Least number of timed runs.")] = None,
    seconds: Annotated[
        float | None, Option(min=0, max=86_400, callback=finite, help="Least time of the timed runs.")
    ] = None,
    starts: Annotated[
        int | None, Option(min=1, max=100, help="On host and server: processes over which the timed runs are spread.")
    ] = None,
    threads: Annotated[int | None, Option(min=1, max=1024, help="CPU threads.")] = None,
    prediction: Prediction = None,
    timestep: Timestep = None,
) -> None:
    """Run an artifact as a device would: latency, memory and its own images.

    Writes a benchmark run: plan.json, record.json and the samples.

    \b
    Examples:
      rdd-edge bench bundles/android-int8 --quick --out bench/android-int8
      rdd-edge bench bundles/jetson-fp16 --device ssh://nvidia@orin --out bench/orin
      rdd-edge bench bundles/android-int8 --device adb:// --out bench/phone
      rdd-edge bench bundles/ios-w8 --device ios:// --out bench/iphone
      rdd-edge bench runs/digits --device server --out bench/server
    """
    from ..api import bench as run
    from ..benchmarking.bench import default_plan
    from ..benchmarking.record import summary
    from ..console import ConsoleReporter

    plan = default_plan(source, quick=quick).changed(
        samples=n, seed=seed, runs=runs, seconds=seconds, threads=threads, starts=starts
    )
    with ConsoleReporter(f"bench {source.name}:"):
        record = run(
            source, out, device=device, plan=plan, runtime=runtime, apk=apk, prediction=prediction, timestep=timestep
        )
    found = summary(record)
    if found is None:
        typer.echo(f"{out}: latency not measured: {record.missing.get('latency_ms', 'no reason given')}")
    else:
        typer.echo(
            f"{out}: {found.median:.3f} ms median, {found.p90:.3f} ms p90 of {found.runs} runs, {record.starts} starts"
        )


def devices(
    hosts: Annotated[
        list[str] | None, Argument(metavar="[SSH]...", help="Boards to try: ssh://user@host\\[:port].")
    ] = None,
) -> None:
    """List what bench --device can be given: this machine, phones and tablets, and the boards that are named.

    \b
    Examples:
      rdd-edge devices
      rdd-edge devices ssh://nvidia@orin
    """
    from ..benchmarking.devices import list_devices

    for name, detail in list_devices(hosts or ()):
        typer.echo(f"{name:<28} {detail}")


def compare(
    runs: Annotated[list[Path], Argument(help="Training runs; those that differ only in the seed are repetitions.")],
    out: Annotated[Path | None, Option(dir_okay=False, help="File for the table: .md or .json.")] = None,
    grid: Annotated[
        Path | None, Option(dir_okay=False, help="PNG file with a row of images per method and step count.")
    ] = None,
    n: Samples = 2000,
    seed: Seed = 0,
    data: Data = None,
    extractor: Extractor = None,
) -> None:
    """Compare training runs: tables of method and steps, and images from the same noise.

    The noise is that of --seed for the first run of a row, and of the next seeds for its repetitions.
    """
    from ..console import ConsoleReporter
    from ..distributed import joined
    from ..evaluation.comparison import compare as run
    from ..evaluation.comparison import draw_comparison

    with ConsoleReporter(), joined(None):
        found = run(runs, n, seed, out, data, extractor)
    if not is_main_process():
        return
    typer.echo(found.markdown(), nl=False)
    if grid is not None:
        typer.echo(f"{grid}: rows from the top: {', '.join(draw_comparison(found, grid))}")


def compare_bench(
    before: Annotated[Path, Argument(help="Benchmark run to compare with, or a folder of repetitions of one.")],
    after: Annotated[Path, Argument(help="New benchmark run, or a folder of repetitions of one.")],
    max_slower: Annotated[str | None, Option(help="Largest allowed rise of the median latency, e.g. 5%.")] = None,
    max_fd_rise: Annotated[str | None, Option(help="Largest allowed rise of the Fréchet distance, e.g. 2%.")] = None,
    any_conditions: Annotated[
        bool, Option("--any-conditions", help="Compare times measured under different conditions, too.")
    ] = False,
) -> None:
    """Compare two benchmark runs; exit with an error on a regression.

    With repetitions, a figure has regressed only if every new run is above every old one as well.
    """
    from ..evaluation.regression import compare_runs

    found = compare_runs(
        before, after, parse_fraction(max_slower), parse_fraction(max_fd_rise), any_conditions=any_conditions
    )
    for note in found.notes:
        typer.echo(f"different conditions: {note}")
    for change in found.changes:
        typer.echo(str(change))
    found.check()


COMMANDS = (sample, evaluate, bench, devices, compare, compare_bench)
