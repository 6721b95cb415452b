"""Compare rdd-edge's export of a one-step student with the vendors' recipes, ONNX Runtime and PyTorch.

    python benchmarks/export.py --size cifar10                  # 35.7 M parameters, random weights
    python benchmarks/export.py --checkpoint RUN --mixed 45     # a trained student, and our mixed precision

Prints time, size and PSNR of each variant. Each variant runs in its own process. The processes take turns, a few runs
at a time, so that other load on the machine affects all of them equally, and all are started several times, because its
memory layout makes a process up to 20% faster or slower for its whole life. The time is the median of all runs of a
variant. GFLOP/s counts two operations for each multiplication of the student's convolutions and linear layers as
trained, whatever a variant turns them into; the peak is the rate of a square float32 matrix product in PyTorch on the
same threads. PSNR compares images with those of PyTorch in float32 from the same noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import export_paths
import numpy as np
import torch

from rdd_edge.dependencies import silenced
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import build_unet
from rdd_edge.diffusion.saving import save_checkpoint
from rdd_edge.distillation.presets import preset
from rdd_edge.exporting.budget import PsnrBudget
from rdd_edge.exporting.pipeline import export_bundles
from rdd_edge.exporting.program import export_program
from rdd_edge.graphs.layers import total_macs
from rdd_edge.portable.psnr import psnr_per_image

PEAK, STUDENT = "matrix-peak", "eager-fp32"
PEAK_SIDE = 2048
TURN_SECONDS = 0.1  # at least: the threads of the process before spin for a while, and slow what begins
SAMPLES = 32  # on which PSNR is measured
RATIOS = (
    ("ours-fp32", "naive-fp32"), ("ours-fp32", "ort-fp32"), ("ours-int8", "naive-int8"), ("ours-int8", "eager-fp32"),
    ("ours-int8", "ort-int8"), ("ours-int8", "ort-int8-products"), ("ours-mixed", "naive-int8"),
)  # fmt: skip
WITHOUT = [(name, name.partition("-without-")[0]) for name in export_paths.WITHOUT]  # and the whole way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--size", help="preset of the network, with random weights")
    source.add_argument("--checkpoint", type=Path, help="a training run or a diffusers UNet2DModel folder")
    parser.add_argument("--mixed", type=float, help="also build mixed precision with this minimum PSNR, in dB")
    parser.add_argument("--only", help="comma-separated variants; default: all")
    parser.add_argument("--without", action="store_true", help="also build ours without each of its rewrites")
    parser.add_argument("--starts", type=int, default=4, help="starts of each process; 0 only builds, for --work")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after each start")
    parser.add_argument("--runs", type=int, default=5, help="least runs of each variant in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder that keeps the built variants, for reuse")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.work, arguments.serve, arguments.checkpoint, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        measure(arguments, arguments.work or Path(name))


def measure(arguments: argparse.Namespace, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.checkpoint or random_student(arguments.size, work / "student")
    student = read_checkpoint(checkpoint)
    if student.classes is not None:
        raise SystemExit(f"{checkpoint} is conditional: this benchmark compares unconditional models only")
    macs = total_macs(export_program(student.load(), (1, *student.image_shape), None).module())
    names = arguments.only.split(",") if arguments.only else list(export_paths.BUILDERS)
    if arguments.without:
        names += [name for name, whole in WITHOUT if whole in names]
    for name in names:
        if not any((work / f"{name}{ending}").is_file() for ending in (".pte", ".onnx", ".json")):
            start = time.monotonic()
            with silenced():
                export_paths.build(name, checkpoint, work)
            print(f"{name}: built in {time.monotonic() - start:.0f} s", file=sys.stderr)
    if arguments.mixed is not None:
        names.append("ours-mixed")
        if not (work / "ours-mixed.pte").is_file():
            build_mixed(checkpoint, arguments.mixed, work)
    if arguments.starts == 0:
        return
    names.append(PEAK)
    for old in work.glob("*.x.npy"):
        old.unlink()
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.starts):
        workers = start_workers(names, work, checkpoint, arguments.threads)
        for _ in range(arguments.rounds):
            for name, worker in workers.items():
                times[name] += worker.times(arguments.runs)
        for worker in workers.values():
            worker.close()
    show(work, names, times, macs, arguments.threads)


def start_workers(names: list[str], work: Path, checkpoint: Path, threads: int) -> dict[str, Worker]:
    """A process for each variant; those without a rewrite that do not run are taken from `names`."""
    workers = {}
    for name in list(names):
        try:
            workers[name] = Worker(name, work, checkpoint, threads)
        except DoesNotRun as error:
            if name not in export_paths.WITHOUT:
                raise SystemExit(str(error)) from None
            print(error, file=sys.stderr)
            names.remove(name)
    return workers


def show(work: Path, names: list[str], times: dict[str, list[float]], macs: int, threads: int) -> None:
    medians = {name: statistics.median(times[name]) for name in names}
    rate = 2 * PEAK_SIDE**3 / medians[PEAK] / 1e6  # GFLOP/s, of milliseconds
    print(f"\n{2 * macs / 1e9:.2f} GFLOP an image, {threads} threads; matrix peak {rate:.0f} GFLOP/s\n")
    print("| variant | ms, median | GFLOP/s, fraction of the peak | MB | PSNR, dB |\n|---|---:|---:|---:|---:|")
    student = images_of(work, STUDENT)
    for name in names[:-1]:
        achieved = 2 * macs / medians[name] / 1e6
        x, size, psnr = images_of(work, name), "–", "–"
        if name != STUDENT and student is not None and x is not None:
            files = [path for path in work.glob(f"{name}.*") if path.suffix in (".pte", ".onnx", ".data")]
            size = f"{sum(path.stat().st_size for path in files) / 1e6:.2f}"
            psnr = f"{np.median(psnr_per_image(x, student, 2.0)):.1f}"
        print(f"| {name} | {medians[name]:.2f} | {achieved:.0f}, {achieved / rate:.2f} | {size} | {psnr} |")
    print("\n| ratio of medians | |\n|---|---:|")
    for ours, other in (*RATIOS, *WITHOUT):
        if ours in medians and other in medians:
            print(f"| {ours} / {other} | {medians[ours] / medians[other]:.3f} |")


def images_of(work: Path, name: str) -> np.ndarray | None:
    path = work / f"{name}.x.npy"
    return np.load(path) if path.is_file() else None


def random_student(name: str, folder: Path, classes: int | None = None) -> Path:
    """A network of a preset's size with the weights from which training would start."""
    if not folder.is_dir():
        chosen = preset(name)
        side = chosen.image_size or 32
        unet = build_unet(chosen.network.unet((3, side, side), classes), 0)
        save_checkpoint(folder, unet, role="student", method="random", sampling_steps=1)
    return folder


def build_mixed(checkpoint: Path, least_db: float, work: Path) -> None:
    (bundle,) = export_bundles(checkpoint, ("android",), "mixed", work / "mixed", budget=PsnrBudget(least_db))
    (work / "ours-mixed.pte").write_bytes(bundle.artifact.read_bytes())


class DoesNotRun(Exception):
    """A variant cannot be run: ExecuTorch refuses some that it has itself lowered, without our rewrites."""


class Worker:
    """A variant in its own process, which runs it on request."""

    def __init__(self, name: str, work: Path, checkpoint: Path, threads: int) -> None:
        command = [sys.executable, __file__, "--serve", name, "--work", str(work), "--checkpoint", str(checkpoint)]
        self._name = name
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - runtimes print many; kept for the error
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._messages, text=True,
        )  # fmt: skip
        self._answer()  # once it has loaded the variant and written its images

    def times(self, runs: int) -> list[float]:
        """Milliseconds of each run, after one run that is not counted."""
        assert self._process.stdin is not None
        print(runs, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._messages.seek(0)
            raise DoesNotRun(f"{self._name} ended its process (exit code {code}): {self._messages.readlines()[-1:]}")
        return list(json.loads(line))

    def close(self) -> None:
        self._process.communicate()


def serve(work: Path, name: str, checkpoint: Path, threads: int) -> None:
    """The worker's process: reads a number of runs per line of standard input, prints their times on one line each."""
    out = sys.stdout
    sys.stdout = sys.stderr  # runtimes print messages; standard output is for the answers alone
    if name == PEAK:
        torch.set_num_threads(threads)
        a, b = torch.rand(PEAK_SIDE, PEAK_SIDE), torch.rand(PEAK_SIDE, PEAK_SIDE)
        result = torch.empty(PEAK_SIDE, PEAK_SIDE)

        def once() -> object:
            return torch.mm(a, b, out=result)

    else:
        run, z = export_paths.open_runner(work, name, threads), export_paths.inputs(checkpoint, SAMPLES)
        images = work / f"{name}.x.npy"
        if not images.is_file():
            np.save(images, np.concatenate([run(row[None]) for row in z]))

        def once() -> object:
            return run(z[:1])

    print("[]", file=out, flush=True)
    for line in sys.stdin:
        once()
        times = []
        began = time.monotonic()
        while len(times) < int(line) or time.monotonic() - began < TURN_SECONDS:
            start = time.perf_counter_ns()
            once()
            times.append((time.perf_counter_ns() - start) / 1e6)
        print(json.dumps(times), file=out, flush=True)


if __name__ == "__main__":
    main()
