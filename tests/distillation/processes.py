"""Twenty float64 steps of each stage, in one process or, under torchrun, in several. Run by test_distributed.py.

python tests/distillation/processes.py OUT.safetensors BATCH
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from rdd_edge.data import load_images
from rdd_edge.diffusion.external_teacher import Schedule, foreign_denoiser
from rdd_edge.diffusion.network import build_unet, denoiser
from rdd_edge.distillation.batches import ImageBatches
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import Preset, Refining
from rdd_edge.distillation.losses.critics import new_critics
from rdd_edge.distillation.losses.lpips import PerceptualDistance
from rdd_edge.distillation.losses.objective import Objective
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.stages.base import Stage
from rdd_edge.distillation.stages.classifier import ClassifierStage
from rdd_edge.distillation.stages.halving import HalvingStage
from rdd_edge.distillation.stages.matching import MatchStage
from rdd_edge.distillation.stages.refining import RefiningStage
from rdd_edge.distillation.stages.sfddm import SfddmStage
from rdd_edge.distillation.stages.teacher import TeacherStage
from rdd_edge.distributed import current, joined
from rdd_edge.metrics.networks import Classifier, ExtractorConfig

STEPS = 20
SHAPE = (3, 8, 8)
FEATURES = ExtractorConfig(
    name="x", architecture="densenet", widths=(1, 2), growth=4, stem=4, image_shape=SHAPE, classes=10
)


NAMES = ("extractor", "teacher", "pd", "rcfd", "rdd", "conversion", "smaller", "sfddm", "refined")
LOSSES = {"pd": "pd", "rcfd": "cfd", "rdd": "pd,cfd,ii_p2p,is_p2p,m_p2p,lpips"}


def stage(name: str, context: ComputeContext, batch: int) -> Stage:
    """One of NAMES, tiny and with random weights; "rdd" has every term of the losses."""
    preset = resolve(
        "digits",
        losses=LOSSES.get(name, LOSSES["rdd"]),
        settings=[
            "network.channels=[8,16]", "network.groups=4", "memory.capacity=30", "memory.draw=16",
            *(f"{stage}.{key}={value}" for stage in ("teacher", "distillation")
              for key, value in (("steps", STEPS), ("batch", batch), ("flip", "true"))),
            f"extractor_training.batch={batch}", "extractor_training.flip=true", "extractor_training.cutout=3",
            "extractor_training.auto_augment=true",
        ],
    )  # fmt: skip
    digits = load_images("digits")
    data = ImageBatches(dataclasses.replace(digits, images=digits.images.repeat(3, axis=3)), context)
    unet, training = preset.network.unet(SHAPE, None), preset.distillation
    narrow = preset.network.model_copy(update={"channels": (4, 8)}).unet(SHAPE, None)
    match name:
        case "extractor":
            return ClassifierStage(name, FEATURES, preset.extractor_training, data, 0)
        case "teacher":
            return TeacherStage(build_unet(unet, 1), preset.teacher, 5.0, data, 0, False)
        case "conversion" | "smaller":
            teacher = context.prepare(build_unet(unet, 4)).eval().requires_grad_(False)
            if name == "conversion":
                foreign = partial(
                    foreign_denoiser, teacher, linear_schedule().to(context.device), precision=context.autocast
                )
                return MatchStage(name, foreign, build_unet(unet, 6), training, data, 0, False, grid=None,
                                  role="teacher", method="c")  # fmt: skip
            predict = partial(denoiser, teacher, precision=context.autocast)
            return MatchStage(name, predict, build_unet(narrow, 9), training, data, 0, False, grid=4, role="student",
                              method="m")  # fmt: skip
        case "sfddm":
            return SfddmStage(
                build_unet(unet, 7), build_unet(narrow, 10), (0.2, 0.7, 1.0), 1.0, training, data, 0, False
            )
        case "refined":
            refining = Refining(training=training.model_copy(update={"ema": 0.9}), critic_rate=1e-3)
            critics = new_critics(_extractor(context), SHAPE, 8, None, 4)
            return RefiningStage(build_unet(unet, 8), None, critics, refining, data, 0, False)
    objective = _objective(preset, context)
    return HalvingStage(build_unet(unet, 2), build_unet(unet, 3), 2, name, objective, training, data, 0, False)


def _extractor(context: ComputeContext) -> nn.Module:
    torch.manual_seed(0)
    return context.prepare(Classifier(FEATURES).features).eval().requires_grad_(False)


def _objective(preset: Preset, context: ComputeContext) -> Objective:
    extractor = _extractor(context)
    perceptual = context.prepare(PerceptualDistance("alex", 32)).requires_grad_(False)
    for weight in perceptual.weights:
        weight.uniform_()
    objective = Objective(preset.losses, preset.taus, preset.memory, 2, extractor, context, perceptual)
    objective.prepare(12, 3)  # (4 + 4)/2 + 2 · 4 channels
    return objective


def linear_schedule() -> Schedule:
    """The schedule of DDPM, for a network that predicts ε."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    cumulative = torch.cumprod(1 - betas, 0)
    return Schedule(torch.atan2((1 - cumulative).sqrt(), cumulative.sqrt()) * (2 / torch.pi), betas, "epsilon")


def main(out: Path, batch: int) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    tensors: dict[str, torch.Tensor] = {}
    with joined("cpu") as device:
        for which in NAMES:
            one = stage(which, ComputeContext(device), batch)
            for index in range(STEPS):
                values = one.step(index, log=True)
                assert values is not None
                for name, value in values.items():
                    if value is not None:
                        tensors[f"{which}/{index}/{name}"] = torch.as_tensor(value).detach().clone()
            for name, tensor in one.state().items():
                tensors[f"{which}/state/{name}"] = tensor.detach().clone().contiguous()
        if current().is_main:
            save_file(tensors, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
