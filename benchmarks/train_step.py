"""Training speed of a preset: images per second, FLOP/s compared with the device's peak, and the parts of an RDD step.

    python benchmarks/train_step.py --preset cifar10-edge --batch 8 --steps 3
    python benchmarks/train_step.py --preset cifar10-edge --stage teacher pd --batch 512 --steps 50

Weights and images are random, which does not change the time. The time of a step is the mean of many in a row without
synchronisation. The parts are timed separately, each with synchronisation, so their sum may exceed the step.
torch.utils.flop_counter counts the products of convolutions, linear layers and attention; the peak is measured with
square matrix products in the networks' data type.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rdd_edge.data import ImageSet
from rdd_edge.diffusion.network import build_unet
from rdd_edge.diffusion.schedule import MOST_WEIGHT, snr_weight
from rdd_edge.distillation.batches import ImageBatches
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import METHODS, Compute, Preset
from rdd_edge.distillation.losses.objective import Objective
from rdd_edge.distillation.presets import PRESETS, resolve
from rdd_edge.distillation.stages.base import Stage
from rdd_edge.distillation.stages.classifier import ClassifierStage
from rdd_edge.distillation.stages.halving import HalvingStage, two_step_target
from rdd_edge.distillation.stages.teacher import TeacherStage
from rdd_edge.metrics.networks import Classifier, ExtractorConfig

STAGES = ("extractor", "teacher", "pd", "rcfd", "rdd")
WARM_UP = 3  # steps in which networks are compiled and cuDNN chooses its kernels


class StageFactory:
    """Builds the stages of a preset with random weights and random data."""

    def __init__(self, chosen: Preset, context: ComputeContext) -> None:
        self.preset, self.context = chosen, context
        digits = chosen.data == "digits"
        side, self.classes = chosen.image_size or (8 if digits else 32), 1000 if chosen.conditional else 10
        self.shape = (1 if digits else 3, side, side)
        count = max(4096, 2 * chosen.extractor_training.batch)
        images = np.random.default_rng(0).integers(0, 256, (count, side, side, self.shape[0]), dtype=np.uint8)
        names = tuple(map(str, range(self.classes)))
        self.data = ImageBatches(ImageSet("random", images, np.arange(count) % self.classes, names, "0" * 64), context)
        self.config = ExtractorConfig(**chosen.extractor.model_dump(), image_shape=self.shape, classes=self.classes)

    def unet(self, seed: int) -> torch.nn.Module:
        classes = self.classes if self.preset.conditional else None
        return build_unet(self.preset.network.unet(self.shape, classes), seed)

    def stage(self, name: str) -> tuple[Stage, int]:
        """A stage and its batch size. A halving is 2 → 1 steps, with a full queue so that every term is computed."""
        p = self.preset
        if name == "extractor":
            return ClassifierStage(name, self.config, p.extractor_training, self.data, 0), p.extractor_training.batch
        if name == "teacher":
            return TeacherStage(
                self.unet(0), p.teacher, p.most_weight or MOST_WEIGHT, self.data, 0, p.conditional
            ), p.teacher.batch
        return self.halving(name), p.distillation.batch

    def halving(self, method: str) -> HalvingStage:
        p = self.preset.model_copy(update={"terms": METHODS[method]})
        extractor, channels = None, 0
        if p.losses.uses_features:
            classifier = Classifier(self.config)
            extractor, channels = (
                self.context.prepare(classifier.features).eval().requires_grad_(False),
                classifier.map_shape[0],
            )
        objective = Objective(p.losses, p.taus, p.memory, 1, extractor, self.context)
        objective.prepare(channels, 0)
        if objective.queue is not None:
            objective.queue.entries.normal_().div_(objective.queue.entries.norm(dim=1, keepdim=True))
            objective.queue.pushed = len(objective.queue.entries)
        return HalvingStage(
            self.unet(0), self.unet(1), 1, method, objective, p.distillation, self.data, 0, p.conditional
        )


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Time of the fastest round, with synchronisation."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def step_seconds(stage: Stage, device: torch.device, steps: int) -> float:
    """Mean time of `steps` steps in a row, after the warm-up."""
    for index in range(WARM_UP):
        stage.step(index, log=False)
    synchronize(device)
    start = time.perf_counter()
    for index in range(WARM_UP, WARM_UP + steps):
        stage.step(index, log=False)
    synchronize(device)
    return (time.perf_counter() - start) / steps


def flops(stage: Stage) -> int:
    """FLOP of one step; uncompiled, because the counter does not see into compiled code."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        stage.step(WARM_UP, log=False)
    return int(counter.get_total_flops())


def matrix_peak(device: torch.device, kind: torch.dtype) -> float:
    """FLOP/s of a square matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 10)


def parts(stage: HalvingStage, device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of each part of a step: forward, and backward where there is one."""
    batch = stage.draw(0)
    z, t = batch.z, batch.t
    teacher, predict = stage.denoiser(stage.teacher, batch), stage.denoiser(stage.network, batch)
    target = two_step_target(teacher, z, t, 1)
    x = predict(z, t).detach().requires_grad_()
    extractor = stage.objective.extractor
    assert extractor is not None

    def features() -> None:
        with stage.context.autocast():
            with torch.no_grad():
                extractor(target)
            extractor(x).float().sum().backward()

    def all_terms() -> None:
        stage.objective.total(stage.objective.compute(x, target, snr_weight(t), batch.rng, len(t))).backward()

    parts_seconds = {
        "teacher": seconds(lambda: two_step_target(teacher, z, t, 1), device, rounds),
        "student": seconds(lambda: predict(z, t).float().sum().backward(), device, rounds),
        "extractor": seconds(features, device, rounds),
    }
    parts_seconds["losses"] = max(0.0, seconds(all_terms, device, rounds) - parts_seconds["extractor"])
    return parts_seconds


def measure(factory: StageFactory, name: str, device: torch.device, steps: int, peak: float) -> dict[str, float]:
    """Measure and print one stage; returns its figures.  peak: FLOP/s of the device."""
    stage, batch = factory.stage(name)
    step = step_seconds(stage, device, steps)
    rate = flops(stage) / step
    print(f"{name}: step {1e3 * step:.1f} ms, {batch / step:.0f} images/s, batch {batch}")
    print(f"  {rate / 1e9:.1f} GFLOP/s of a matrix peak of {peak / 1e9:.1f}: {rate / peak:.1%}")
    if isinstance(stage, HalvingStage) and name == "rdd":
        times = parts(stage, device, max(1, steps // 2))
        times["rest: data, optimizer, host"] = max(0.0, step - sum(times.values()))
        for part, value in times.items():
            print(f"  {part:<10} {1e3 * value:8.1f} ms  {value / step:6.1%}")
    return {"step_seconds": step, "images_per_second": batch / step, "flops": rate, "fraction_of_peak": rate / peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for rdd-edge distill")
    parser.add_argument("--stage", nargs="+", action="extend", choices=STAGES, help="default: rdd")
    parser.add_argument("--batch", type=int, help="default: as in the preset")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="file for the results")
    for option in ("bf16", "channels-last", "compile", "device-noise"):
        parser.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    batches = [f"{stage}.batch={options.batch}" for stage in ("teacher", "distillation")] if options.batch else []
    chosen = resolve(options.preset, settings=[*options.set, *batches])
    switches = ("bf16", "channels_last", "compile", "device_noise")
    given = {name: value for name in switches if (value := getattr(options, name)) is not None}
    compute = Compute.model_validate({**chosen.compute.model_dump(), **given})
    half = compute.bf16 if compute.bf16 is not None else device.type == "cuda"
    peak = matrix_peak(device, torch.bfloat16 if half else torch.float32)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} threads"
    print(f"{options.preset}, {name}, {'bf16' if half else 'float32'}")
    factory = StageFactory(chosen, ComputeContext(device, compute=compute))
    results = {stage: measure(factory, stage, device, options.steps, peak) for stage in options.stage or ["rdd"]}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"device": name, "peak_flops": peak, "stages": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
