"""Commands that make and check what ships."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer import Argument, Option

from ..errors import UsageError
from .options import MOST_SAMPLES, Checkpoint, Data, Extractor, Prediction, Seed, Timestep, finite, parse_fraction

if TYPE_CHECKING:
    from ..benchmarking.verify import VerifyReport


def export(
    checkpoint: Checkpoint,
    target: Annotated[list[str], Option(help="android, ios or jetson; may be repeated.")],
    out: Annotated[Path, Option(file_okay=False, help="Folder that gets one bundle per target and precision.")],
    precision: Annotated[
        list[str] | None,
        Option(
            help="A precision that every target has, or all; may be repeated.  "
            "Default: fp32 for android, fp16 for ios and jetson."
        ),
    ] = None,
    backend: Annotated[
        str | None, Option(help="Backend of the target, e.g. vulkan for an Android GPU.  Default: its first.")
    ] = None,
    min_psnr: Annotated[
        float | None,
        Option(callback=finite, help="Mixed precision: median PSNR to the student that must be kept, in dB."),
    ] = None,
    max_fd_rise: Annotated[
        str | None, Option(help="Mixed precision: largest rise of the Fréchet distance over the student's, e.g. 2%.")
    ] = None,
    data: Data = None,
    extractor: Extractor = None,
    allow_low_parity: Annotated[
        bool, Option("--allow-low-parity", help="Keep a bundle whose images are too far from the student's.")
    ] = False,
    prediction: Prediction = None,
    timestep: Timestep = None,
) -> None:
    """Export a student: one bundle for each target and precision.

    Each artifact is run, where this machine can, and compared with the student before its bundle is kept.

    \b
    Examples:
      rdd-edge export runs/digits --target android --target ios --target jetson --out bundles
      rdd-edge export runs/digits --target android --precision fp32 --precision int8 --out bundles
      rdd-edge export runs/digits --target android --min-psnr 45 --out bundles
    """
    from ..api import export as run
    from ..console import ConsoleReporter

    with ConsoleReporter("export:"):
        run(
            checkpoint, target, out, precision=precision, backend=backend, min_psnr=min_psnr,
            max_fd_rise=parse_fraction(max_fd_rise), data=data, extractor=extractor,
            allow_low_parity=allow_low_parity, prediction=prediction, timestep=timestep,
        )  # fmt: skip


def verify(
    bundle: Annotated[Path, Argument(help="Bundle to check.")],
    arch: Annotated[str | None, Option(help="Processor to emulate: arm64 for an Android bundle.")] = None,
    cpu: Annotated[
        list[str] | None,
        Option(help="With --arch, CPU model to emulate, e.g. cortex-a76; may be repeated.  Default: one of each kind."),
    ] = None,
    n: Annotated[int | None, Option("--n", "-n", min=1, help="With --arch, number of images.  Default: all.")] = None,
) -> None:
    """Check a bundle: its hashes, its images against the student's, and its runtime's rules.

    \b
    Examples:
      rdd-edge verify bundles/android-int8
      rdd-edge verify bundles/android-int8 --arch arm64 --cpu cortex-a53 --cpu cortex-a76
    """
    if arch is not None:
        _verify_emulated(bundle, arch, cpu or [], n)
        return
    if cpu or n is not None:
        raise UsageError("--cpu and --n are for an emulated processor: give --arch as well, such as --arch arm64")
    from ..benchmarking.verify import verify_bundle

    found = verify_bundle(bundle)
    name = f"{found.target} {found.precision}"
    if found.psnr_db is None:
        typer.echo(f"{name}: hashes match; not run on this machine: {found.reason}")
    else:
        typer.echo(f"{name}: {_verdict(found)}")
        if found.reason:
            typer.echo(f"  {found.reason}")
    for tensor, magnitude in found.largest.items():
        typer.echo(f"  largest float16 magnitude {magnitude:.4g} in {tensor}")


def _verdict(found: VerifyReport) -> str:
    allowed = ", lower allowed by its export" if found.low_allowed else ""
    return (
        f"{found.psnr_db:.1f} dB median, {found.worst_psnr_db:.1f} dB worst; "
        f"at least {found.threshold_db:g} dB required{allowed}"
    )


def _verify_emulated(bundle: Path, arch: str, cpus: list[str], n: int | None) -> None:
    from ..benchmarking.verify import verify_emulated
    from ..console import ConsoleReporter

    with ConsoleReporter("verify:"):
        for found in verify_emulated(bundle, arch, cpus, n):
            typer.echo(f"{found.target} {found.precision} on {found.processor}, emulated: {_verdict(found)}")


def harness(
    target: Annotated[str, Argument(help="Target whose bundles an app runs: android or ios.")],
    out: Annotated[Path, Option(file_okay=False, help="New folder for the app's project.")],
    build: Annotated[
        bool, Option("--build", help="Build the APK too, of android; needs Gradle and an Android SDK.")
    ] = False,
) -> None:
    """Copy the project of the app that runs bundles on a phone, and build it where that needs no signature.

    \b
    Examples:
      rdd-edge harness android --out app
      rdd-edge harness android --build --out app
      rdd-edge harness ios --out app
    """
    from ..console import ConsoleReporter
    from ..exporting.app import build_app, copy_app

    with ConsoleReporter("harness:"):
        typer.echo(build_app(target, out) if build else copy_app(target, out))


def pack(
    run: Annotated[Path, Argument(help="Training run whose student is packed.")],
    name: Annotated[str, Option(help="Name of the model.")],
    out: Annotated[Path, Option(help="New folder for the model.")],
    dtype: Annotated[str, Option(help="Type of the stored weights: bfloat16 or float16.")] = "bfloat16",
    n: Annotated[int, Option("--n", min=2, max=MOST_SAMPLES, help="Number of samples of each metric.")] = 10_000,
    seed: Seed = 0,
    data: Data = None,
    extractor: Annotated[
        list[str] | None,
        Option(help="As in evaluate; may be repeated, for one metric each.  Default: the training run's judge."),
    ] = None,
) -> None:
    """Pack a run's student as a model to publish, in half precision and with a model card.

    The metrics in the card are measured on the rounded weights.
    """
    from ..console import ConsoleReporter
    from ..dependencies import import_or_explain

    import_or_explain("torch", "packing a model", "distill")
    from ..diffusion.checkpoint import WEIGHTS
    from ..release.model_card import CARD_FILE
    from ..release.pack import pack as run_pack

    with ConsoleReporter():
        found = run_pack(run, name, out, cast("Any", dtype), n, seed, data, extractor or ())
    for evaluation in found:
        for line in evaluation.lines():
            typer.echo(line)
    typer.echo(f"{out}: {(out / WEIGHTS).stat().st_size / 1e6:.1f} MB, {out / CARD_FILE}")


COMMANDS = (export, verify, harness, pack)
