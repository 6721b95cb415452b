"""Instructions that an Android artifact takes for an image on ARM's own kernels, counted under emulation.

    apt-get install g++-aarch64-linux-gnu qemu-user             # once, as root
    python benchmarks/arm64.py --preset cifar10-edge            # a preset's network, random weights
    python benchmarks/arm64.py --checkpoint RUN --cpu cortex-a53 --cpu cortex-a76

The ways are the vendor's recipe, ours, and ours without one of its rewrites, in fp32 and int8. A plugin of qemu counts
what one thread executes between the writes of two images, exactly: from the third image on all counts are the same.
Large networks may be counted on the second (--images 2). Before the ways, pairs of layers whose order is known are
counted, as a check of the count.

A count is not a time. It knows nothing of memory and caches, of how many instructions a core issues at once, and of how
long each takes: a multiplication of 128 bits counts as much as the increment of an address. It ranks ways through the
same kernels, such as rewrites of one network; between fp32 and int8, or CPU models, only large ratios mean something.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import export_paths
import numpy as np
import torch
from export import DoesNotRun, random_student
from torch import nn

from rdd_edge.dependencies import silenced
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.portable.noise import normals
from rdd_edge.targets.android.arm64.build import arm64_program
from rdd_edge.targets.android.arm64.toolchain import SYSROOT

PRECISIONS = ("fp32", "int8")
CHANNELS, SIDE = 64, 16  # of the layers of known order
PAIRS = (  # (layer, precision, CPU model) with fewer instructions, with more, and why
    (("3x3", "fp32", "cortex-a76"), ("3x3 twice", "fp32", "cortex-a76"), "2 times the multiplications"),
    (("1x1", "fp32", "cortex-a76"), ("3x3", "fp32", "cortex-a76"), "9 times the multiplications"),
    (("3x3", "int8", "cortex-a76"), ("3x3", "fp32", "cortex-a76"), "SDOT makes 16 products, FMLA 4"),
    (("3x3", "int8", "cortex-a76"), ("3x3", "int8", "cortex-a53"), "SDOT makes 16 products, SMLAL 8"),
    (("3x3", "int8", "max,sme=off"), ("3x3", "int8", "cortex-a76"), "SMMLA makes 32 products, SDOT 16"),
)
Build = Callable[[Path], None]  # writes a .pte file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset", help="a preset whose network gets random weights")
    source.add_argument("--checkpoint", type=Path, help="a training run or a diffusers UNet2DModel folder")
    parser.add_argument("--cpu", action="append", help="CPU model of qemu; default: cortex-a76")
    parser.add_argument("--only", help="names of ways, separated by commas")
    parser.add_argument(
        "--images", type=int, default=4, help="at least 2; the last is counted, compared from the third"
    )
    parser.add_argument("--work", type=Path, help="folder to keep what is built in, and to take it from")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        run(arguments, work)


def run(arguments: argparse.Namespace, work: Path) -> None:
    counter = Counter(work)
    check_pairs(counter, work)
    checkpoint = arguments.checkpoint or random_student(arguments.preset, work / f"student-{arguments.preset}")
    shape, cpus = (1, *read_checkpoint(checkpoint).image_shape), arguments.cpu or ["cortex-a76"]
    builders = ways(checkpoint)
    names = arguments.only.split(",") if arguments.only else list(builders)
    counts: dict[str, list[int]] = {}
    for name in names:
        artifact = work / f"{checkpoint.name}-{name}.pte"
        if not artifact.is_file():
            with silenced():
                builders[name](artifact)
        try:
            counts[name] = [counter.count(artifact, shape, cpu, arguments.images) for cpu in cpus]
            print(f"{name}: {', '.join(f'{count:,}' for count in counts[name])}", file=sys.stderr)
        except DoesNotRun as error:
            counts[name] = []
            print(f"{name} does not run: {error}", file=sys.stderr)
    show(counts, cpus)


def show(counts: dict[str, list[int]], cpus: list[str]) -> None:
    """A table of million instructions an image, and of each way's ratio to the recipe of its precision."""
    print("| way |" + "".join(f" {cpu}, M | of the recipe's |" for cpu in cpus))
    print("|---|" + "---:|---:|" * len(cpus))
    for name, row in counts.items():
        base = counts.get(f"recipe {name.split()[1]}") or row
        cells = [f" {count / 1e6:,.2f} | {count / other:.3f} |" for count, other in zip(row, base, strict=False)]
        print(f"| {name} |{''.join(cells or [' does not run | – |'] * len(cpus))}")


def ways(checkpoint: Path) -> dict[str, Build]:
    """The ways by name: "recipe fp32", "ours fp32", "ours fp32 without winograd", …"""
    builders: dict[str, Build] = {}
    for precision in PRECISIONS:
        builders[f"recipe {precision}"] = partial(export_paths.BUILDERS[f"naive-{precision}"], checkpoint)
        for name, build in export_paths.ours(precision).items():
            builders[name.replace("-", " ", 3)] = partial(build, checkpoint)
    return builders


class Counter:
    """Runs runner.cpp for ARM under qemu with the counting plugin."""

    def __init__(self, work: Path) -> None:
        self._work, self._program = work, arm64_program()
        self._plugin = work / "count.so"
        source = Path(__file__).with_name("count.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(self._plugin), str(source)], check=True)

    def count(self, artifact: Path, shape: tuple[int, ...], cpu: str, images: int) -> int:
        """Instructions of the last image of `shape` (1, C, H, W).

        The first image is not counted, and the second resolves symbols, about a thousand instructions more. Raises
        SystemExit where those after it differ, DoesNotRun where there is no count.
        """
        z, x = self._work / "z.f32", self._work / "x.f32"
        normals(0, range(images), shape[1:]).astype("<f4").tofile(z)
        command = ["qemu-aarch64", "-cpu", cpu, "-L", str(SYSROOT), "-plugin", str(self._plugin), str(self._program)]
        done = subprocess.run(
            [*command, str(artifact), str(z), str(x), *map(str, shape), "1"],
            capture_output=True,
            text=True,
            check=False,
        )
        counts = [int(line) for line in re.findall(r"^instructions (\d+)$", done.stderr, re.MULTILINE)]
        if done.returncode or len(counts) != images:
            raise DoesNotRun(f"{artifact.name} on {cpu}: exit code {done.returncode}, {done.stderr.strip()[-300:]}")
        per_image = np.diff(counts).tolist()
        if len(set(per_image[1:])) > 1:
            raise SystemExit(f"{artifact.name} on {cpu}: the images take {per_image} instructions")
        return int(per_image[-1])


def check_pairs(counter: Counter, work: Path) -> None:
    """Count layers whose order on ARM is known, and print the ratios. Raises SystemExit where the order is another."""
    torch.manual_seed(0)
    three, one = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 1)
    layers = {"1x1": one, "3x3": three, "3x3 twice": nn.Sequential(three, three)}
    counts = {}
    print("| fewer instructions | more instructions | ratio | known, from |\n|---|---|---:|---|")
    for fewer, more, reason in PAIRS:
        for layer, precision, cpu in (fewer, more):
            if (layer, precision, cpu) not in counts:
                path = work / f"{layer} {precision}.pte"
                example = (torch.zeros(1, CHANNELS, SIDE, SIDE),)
                with silenced():
                    program = torch.export.export(layers[layer].eval(), example)
                    export_paths.lower_with(program, (CHANNELS, SIDE, SIDE), precision, (), path)
                counts[layer, precision, cpu] = counter.count(path, (1, CHANNELS, SIDE, SIDE), cpu, images=4)
        ratio = counts[more] / counts[fewer]
        print(f"| {', '.join(fewer)} | {', '.join(more)} | {ratio:.2f} | {reason} |")
        if ratio <= 1.0:
            raise SystemExit("the count does not rank a known pair")
    print()


if __name__ == "__main__":
    main()
