"""Commands that train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .options import MOST_SEED, Extractor, Samples, Seed, finite, is_main_process, parse_numbers

Preset = Annotated[
    str | None,
    Option(
        help="Settings to start from: digits, small, cifar10, cifar10-edge or imagenet64.  Default: those of the run "
        "that is continued or started from, else digits."
    ),
]
PresetData = Annotated[str | None, Option(help='"digits" or a path to images.  Default: the data of the preset.')]
StartFrom = Annotated[
    Path | None, Option(help="Training run whose extractor, judge, teacher and base student are reused.")
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the preset, e.g. teacher.steps=100 or network.channels=16,32.",
    ),
]
MaxMinutes = Annotated[
    float | None,
    Option(min=0, callback=finite, help="Stop cleanly after this many minutes; the command continues it."),
]
ShardMb = Annotated[int, Option(min=1, max=1_000_000, help="Largest file of an unfinished stage's state, in MB.")]


def distill(
    out: Annotated[Path, Option(file_okay=False, help="Folder of the training run; --out alone continues it.")],
    preset: Preset = None,
    data: PresetData = None,
    method: Annotated[str | None, Option(help="rdd, rcfd, pd, pd-lpips or sfddm.  Default: rdd.")] = None,
    losses: Annotated[str | None, Option(help="Loss terms in place of a method, e.g. cfd,ii_p2p.")] = None,
    sfddm_steps: Annotated[int | None, Option(min=1, help="Sampling steps of an SFDDM student.  Default: 1.")] = None,
    subsequence: Annotated[
        str | None,
        Option(help="The teacher's steps that an SFDDM student keeps, e.g. 1,3,5,8.  Default: evenly spaced."),
    ] = None,
    extractor_from: Annotated[
        Path | None,
        Option(
            help="Feature extractor in place of training one: its folder, a training run, or torchvision's weights of "
            "a ResNet or DenseNet."
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        Option(
            help="Folder of a diffusers UNet2DModel with its scheduler, or Hugging Face Hub id; replaces the teacher's "
            "training."
        ),
    ] = None,
    student: Annotated[
        Path | None, Option(help="One-step student to refine with real images, in place of training one.")
    ] = None,
    refine: Annotated[
        bool, Option("--refine/--no-refine", help="Refine the one-step student with critics that see real images.")
    ] = True,
    student_config: Annotated[
        Path | None,
        Option(
            help='JSON file of a smaller student\'s network, e.g. {"channels": \\[16, 32], "blocks": 1, "groups": 8}.'
        ),
    ] = None,
    conditional: Annotated[
        bool | None,
        Option(
            "--conditional/--no-conditional",
            help="Train a model that takes a class label.  Default: as the preset says.",
        ),
    ] = None,
    image_size: Annotated[
        int | None, Option(min=1, max=65536, help="Crop and resize images to this side.  Default: as the preset says.")
    ] = None,
    seed: Annotated[int | None, Option(min=0, max=MOST_SEED, help="Seed of every random draw.  Default: 0.")] = None,
    start_from: StartFrom = None,
    config: Annotated[
        Path | None,
        Option(dir_okay=False, help="TOML file of settings, such as rdd-edge settings prints; options override it."),
    ] = None,
    set_: Settings = None,
    minutes: Annotated[
        float | None,
        Option(
            min=0.1, callback=finite, help="Length of the whole training: its stages share the time by their speed."
        ),
    ] = None,
    max_minutes: MaxMinutes = None,
    save_seconds: Annotated[
        float, Option(min=0, callback=finite, help="Seconds between saved states: the most work that a kill may cost.")
    ] = 30.0,
    shard_mb: ShardMb = 1000,
    tensorboard: Annotated[
        bool, Option("--tensorboard", help="Write scalars and image grids for TensorBoard to OUT/tensorboard.")
    ] = False,
    threads: Annotated[int | None, Option(min=1, max=1024, help="CPU threads.  Default: PyTorch's.")] = None,
    device: Annotated[str | None, Option(help="cpu or cuda.  Default: cuda where available.")] = None,
) -> None:
    """Train a teacher and distil it to one step.

    Trains a feature extractor and a teacher, then students of half as many sampling steps each, down to one.

    \b
    Examples:
      rdd-edge distill --preset digits --out runs/digits
      rdd-edge distill --method pd --start-from runs/digits --out runs/pd
      rdd-edge distill --preset cifar10-edge --data CIFAR10 --minutes 30 --out runs/cifar10
    """
    from ..api import distill as run
    from ..console import ConsoleReporter
    from ..diffusion.checkpoint import read_checkpoint

    with ConsoleReporter(), _continued_by(f"rdd-edge distill --out {out} continues it"):
        found = run(
            out, preset=preset, data=data, method=method, losses=losses, sfddm_steps=sfddm_steps,
            subsequence=subsequence, extractor_from=extractor_from, teacher=teacher,
            student=student, refine=refine, student_config=student_config,
            image_size=image_size, conditional=conditional, seed=seed, config=config, settings=set_ or (),
            start_from=start_from,
            minutes=minutes,
            max_minutes=max_minutes, save_seconds=save_seconds, shard_mb=shard_mb, tensorboard=tensorboard,
            threads=threads, device=device,
        )  # fmt: skip
    if not is_main_process():
        return
    if found.stopped:
        typer.echo(f"{found.stopped}: rdd-edge distill --out {out} continues it")
    else:
        typer.echo(f"{out}: the student is {read_checkpoint(out).folder}")


@contextmanager
def _continued_by(how: str) -> Iterator[None]:
    """Say how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as stop:
        typer.echo(f"rdd-edge: {str(stop) or 'interrupted'}: {how}", err=True)
        raise typer.Exit(130) from None  # of a KeyboardInterrupt Typer would print nothing


def study(
    vary: Annotated[str, Option(help="Setting to vary: tau_is, tau_m, queue, v, alpha, beta or batch.")],
    values: Annotated[str, Option(help="Comma-separated values to try, e.g. 0.5,0.7,1.")],
    out: Annotated[Path, Option(file_okay=False, help="Folder of the study; the same command continues it.")],
    preset: Preset = None,
    data: PresetData = None,
    method: Annotated[str | None, Option(help="rdd, rcfd, pd or pd-lpips.  Default: rdd.")] = None,
    start_from: StartFrom = None,
    set_: Settings = None,
    n: Samples = 2000,
    seed: Seed = 0,
    extractor: Extractor = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Vary one setting of a single halving: a table and a plot."""
    from ..api import deadline_after
    from ..console import ConsoleReporter
    from ..distillation.presets import resolve
    from ..distillation.run_folder import inherited
    from ..distillation.trainer import OutOfTime
    from ..distributed import joined
    from ..evaluation.ablation import study as run

    numbers = parse_numbers("--values", values)
    base = preset or inherited(out / "base", start_from) or "digits"
    chosen = resolve(base, data=data, method=method, settings=set_ or ())
    try:
        with ConsoleReporter(), joined(None), _continued_by("the same command continues it"):
            found = run(
                chosen, vary, numbers, out, start_from=start_from, count=n, seed=seed, extractor=extractor,
                deadline=deadline_after(max_minutes),
            )  # fmt: skip
    except OutOfTime as stop:
        if is_main_process():
            typer.echo(f"{stop}: the same command continues it")
        return
    if is_main_process():
        typer.echo(f"{found.markdown()}{out / 'study.svg'}: the plot")


def settings(
    preset: Annotated[str, Argument(help="Preset: digits, small, cifar10, cifar10-edge or imagenet64.")] = "digits",
) -> None:
    """Print every setting of a preset with its value and meaning, as a file for distill --config.

    \b
    Examples:
      rdd-edge settings digits
      rdd-edge settings cifar10-edge > my.toml
      rdd-edge distill --config my.toml --out runs/mine
    """
    from ..distillation.presets import preset as find
    from ..distillation.settings import settings as run

    for setting in run(find(preset)):
        if setting.key == "name":  # of the preset, in the words of the file
            typer.echo(f'preset = "{setting.value}"')
        else:
            typer.echo(str(setting))


def compact(
    run: Annotated[Path, Argument(help="Training run, finished or not.")],
    out: Annotated[Path, Option(help="New folder for the smaller run.")],
    shard_mb: ShardMb = 1000,
) -> None:
    """Copy a run, rounded to half precision, to continue it on another machine.

    Only what the rest of the training needs is kept, about a quarter of the size. The command that started the run
    continues it in the new folder, no longer bit for bit.
    """
    from ..dependencies import import_or_explain

    import_or_explain("torch", "reading a run", "distill")
    from ..distillation.compact import compact as run_compact

    small = run_compact(run, out, shard_mb * 1_000_000)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB, {small.compacted[-1]}")


COMMANDS = (distill, settings, study, compact)
