"""A whole RDD step of a preset: images a second, the share of each part, and the rate beside the device's matrix peak.

    python benchmarks/train_step.py --preset cifar10-edge --batch 8 --steps 3
    python benchmarks/train_step.py --preset cifar10 --device cuda --steps 50

Networks have random weights and images are random: neither changes the time. The parts are timed apart, each with the
device waited for, so their sum may exceed the step's own time, in which nothing waits. The rate counts the products of
convolutions, linear layers and attention as torch.utils.flop_counter does, over the fastest step; the peak is measured
here with square matrix products in the type the networks use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rdd_edge.config import PRESETS, Compute, preset
from rdd_edge.data import ImageSet
from rdd_edge.distill.batches import Batches
from rdd_edge.distill.draws import generator
from rdd_edge.distill.extractor import Classifier, ExtractorConfig
from rdd_edge.distill.halving import HalvingStage
from rdd_edge.distill.network import build_unet, denoiser
from rdd_edge.distill.noisy import draw_batch
from rdd_edge.distill.place import Place
from rdd_edge.distill.schedule import add_noise, snr_weight
from rdd_edge.distill.targets import two_step_target
from rdd_edge.distill.terms import Terms


def stage_of(name: str, place: Place, batch: int | None) -> HalvingStage:
    """The fold 2 → 1 of a preset, its queue full so that every term is there."""
    chosen = preset(name)
    side, classes = chosen.image_size or (8 if name == "digits" else 32), 1000 if chosen.conditional else 10
    shape = (1 if name == "digits" else 3, side, side)
    images = np.random.default_rng(0).integers(0, 256, (512, side, side, shape[0]), dtype=np.uint8)
    labels = np.arange(512) % classes
    data = Batches(ImageSet("random", images, labels, tuple(map(str, range(classes))), "0" * 64), place)
    config = ExtractorConfig(**chosen.extractor.model_dump(), image_shape=shape, classes=classes)
    classifier = Classifier(config)
    extractor = place.prepare(classifier.features).eval().requires_grad_(False)
    terms = Terms(chosen.losses, chosen.taus, chosen.memory, 1, extractor, place)
    terms.prepare(classifier.map_shape[0], 0)
    if terms.queue is not None:
        terms.queue.entries.normal_().div_(terms.queue.entries.norm(dim=1, keepdim=True))
        terms.queue.pushed = len(terms.queue.entries)
    networks = [build_unet(chosen.network.unet(shape, classes if chosen.conditional else None), k) for k in (0, 1)]
    training = chosen.distillation.model_copy(update={"batch": batch or chosen.distillation.batch})
    return HalvingStage(networks[0], networks[1], 1, "rdd", terms, training, data, 0, chosen.conditional)


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The fastest of some rounds, the device waited for."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def peak(device: torch.device, kind: torch.dtype) -> float:
    """FLOP/s of a square matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 10)


def parts(stage: HalvingStage, device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of each part of a step, forward and where it has one backward."""
    place, batch = stage.data.place, stage.training.batch
    draws = generator(0, "bench", 0)
    x, noise, label = draw_batch(draws, stage.data, stage.training, stage.conditional)
    t = torch.ones(len(x), device=device)  # a one-step student has no other
    z = add_noise(x, noise, t)
    teacher = denoiser(stage.teacher, label, place.autocast)
    target = two_step_target(teacher, z, t, 1)
    predict = denoiser(stage.student, label, place.autocast)
    x = predict(z, t).detach().requires_grad_()
    extractor = stage.terms.extractor
    assert extractor is not None

    def features() -> None:
        with place.autocast():
            with torch.no_grad():
                extractor(target)
            extractor(x).float().sum().backward()

    def all_terms() -> None:
        stage.terms.total(stage.terms.compute(x, target, snr_weight(t), draws, batch)).backward()

    found = {
        "teacher": seconds(lambda: two_step_target(teacher, z, t, 1), device, rounds),
        "student": seconds(lambda: predict(z, t).float().sum().backward(), device, rounds),
        "extractor": seconds(features, device, rounds),
    }
    found["losses"] = max(0.0, seconds(all_terms, device, rounds) - found["extractor"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="digits")
    parser.add_argument("--batch", type=int, help="default: the preset's")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for option in ("bf16", "channels-last", "compile"):
        parser.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, default=None)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    device = torch.device(told.device)
    compute = Compute(bf16=told.bf16, channels_last=told.channels_last, compile=told.compile)
    stage = stage_of(told.preset, Place(device, compute=compute), told.batch)
    half = compute.bf16 if compute.bf16 is not None else device.type == "cuda"
    stage.step(0, log=False)
    step = seconds(lambda: stage.step(1, log=False), device, told.steps)
    share = parts(stage, device, max(1, told.steps // 2))
    for network in (stage.teacher, stage.student, stage.terms.extractor):
        if network is not None:
            network._compiled_call_impl = None  # the counter sees what is called, not what a compiled graph does
    with FlopCounterMode(display=False) as counter:
        stage.step(2, log=False)
    rate, most = counter.get_total_flops() / step, peak(device, torch.bfloat16 if half else torch.float32)
    batch = stage.training.batch
    print(f"{told.preset}, batch {batch}, {told.device}, {'bf16' if half else 'float32'}, {told.threads} threads")
    print(f"step {step:.3f} s, {batch / step:.1f} images/s")
    for name, value in share.items():
        print(f"  {name:<10} {value:8.3f} s  {value / step:6.1%}")
    print(f"  {'rest':<10} {max(0.0, step - sum(share.values())):8.3f} s  data, optimizer, host")
    print(f"{rate / 1e9:.1f} GFLOP/s of a matrix peak of {most / 1e9:.1f}: {rate / most:.1%}")


if __name__ == "__main__":
    main()
