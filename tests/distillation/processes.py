"""Twenty float64 steps of each stage, in one process or, under torchrun, in several. Run by test_distributed.py.

python tests/distillation/processes.py OUT.safetensors BATCH
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from rdd_edge.data import load_images
from rdd_edge.diffusion.external_teacher import Schedule, foreign_denoiser
from rdd_edge.diffusion.network import build_unet, denoiser
from rdd_edge.distillation.batches import ImageBatches
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import Refining
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
from rdd_edge.metrics.classifiers import Classifier, ExtractorConfig

STEPS = 20
SHAPE = (1, 8, 8)


def stages(context: ComputeContext, batch: int) -> list[Stage]:
    preset = resolve(
        "digits",
        losses="pd,cfd,ii_p2p,is_p2p,m_p2p,lpips",
        settings=[
            "network.channels=[8,16]", "network.groups=4", "memory.capacity=30", "memory.draw=16",
            *(f"{stage}.{key}={value}" for stage in ("teacher", "distillation")
              for key, value in (("steps", STEPS), ("batch", batch), ("flip", "true"))),
            f"extractor_training.batch={batch}", "extractor_training.flip=true", "extractor_training.cutout=3",
            "extractor_training.auto_augment=true",
        ],
    )  # fmt: skip
    data = ImageBatches(load_images("digits"), context)
    shape = ExtractorConfig(
        name="x", architecture="densenet", widths=(1, 2), growth=4, stem=4, image_shape=SHAPE, classes=10
    )
    torch.manual_seed(0)
    extractor = context.prepare(Classifier(shape).features).eval().requires_grad_(False)
    perceptual = PerceptualDistance("alex", 32).requires_grad_(False)
    for weight in perceptual.weights:
        weight.uniform_()
    objective = Objective(preset.losses, preset.taus, preset.memory, 2, extractor, context, perceptual)
    objective.prepare(12, 3)  # (4 + 4)/2 + 2 · 4 channels
    networks = [build_unet(preset.network.unet(SHAPE, None), seed) for seed in range(1, 9)]
    smaller = preset.network.model_copy(update={"channels": (4, 8)}).unet(SHAPE, None)
    students = [build_unet(smaller, seed) for seed in (9, 10)]
    x_teacher, training = partial(denoiser, networks[4].requires_grad_(False)), preset.distillation
    foreign = partial(foreign_denoiser, networks[3].requires_grad_(False), linear_schedule())
    refining = Refining(training=training.model_copy(update={"ema": 0.9}), critic_rate=1e-3)
    return [
        ClassifierStage("extractor", shape, preset.extractor_training, data, 0),
        TeacherStage(networks[0], preset.teacher, 5.0, data, 0, False),
        HalvingStage(networks[1], networks[2], 2, "rdd", objective, preset.distillation, data, 0, False),
        MatchStage("conversion", foreign, networks[5], training, data, 0, False, grid=None, role="teacher", method="c"),
        MatchStage("smaller", x_teacher, students[0], training, data, 0, False, grid=4, role="student", method="m"),
        SfddmStage(networks[6], students[1], (0.2, 0.7, 1.0), 1.0, training, data, 0, False),
        RefiningStage(networks[7], None, new_critics(extractor, SHAPE, 8, None, 4), refining, data, 0, False),
    ]


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
        for stage in stages(ComputeContext(device), batch):
            for index in range(STEPS):
                values = stage.step(index, log=True)
                assert values is not None
                for name, value in values.items():
                    if value is not None:
                        tensors[f"{stage.name}/{index}/{name}"] = torch.as_tensor(value).detach().clone()
            for name, tensor in stage.state().items():
                tensors[f"{stage.name}/state/{name}"] = tensor.detach().clone().contiguous()
        if current().is_main:
            save_file(tensors, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
