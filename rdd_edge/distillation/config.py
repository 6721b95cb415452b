"""Presets as values: everything a training run is told, frozen, in and out of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..errors import UsageError
from ..schema import Frozen

__all__ = [
    "METHODS", "PRESETS", "ClassifierTraining", "Compute", "Extractor", "Losses", "Lpips", "Memory", "Network",
    "Preset", "Sfddm", "Taus", "Training", "changed", "preset", "resolve",
]  # fmt: skip

Term = Literal["pd", "cfd", "ii_p2p", "is_p2p", "m_p2p", "lpips"]
METHODS: dict[str, tuple[Term, ...]] = {
    "pd": ("pd",),
    "pd-lpips": ("pd", "lpips"),
    "rcfd": ("cfd",),
    "rdd": ("cfd", "is_p2p", "m_p2p"),
}

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Network(Frozen):
    """A UNet2DModel in the few numbers that matter; `unet` gives diffusers' own arguments."""

    channels: tuple[int, ...] = Field(min_length=1)  # of each level, from full resolution down
    blocks: int = Field(ge=1)  # residual blocks a level
    attention: tuple[int, ...] = ()  # levels with self-attention, 0 the full resolution
    middle_attention: bool = True
    head_channels: int | None = None  # channels of an attention head; None: one head
    groups: int = 32  # of group normalisation
    dropout: NonNegative = 0.0  # while the teacher trains; distillation runs without

    def unet(self, image_shape: tuple[int, int, int], classes: int | None) -> dict[str, Any]:
        """Keyword arguments of UNet2DModel for images (C, H, W)."""
        channels, height, width = image_shape
        levels = range(len(self.channels))
        return {
            "sample_size": height if height == width else (height, width),
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": self.channels,
            "layers_per_block": self.blocks,
            "down_block_types": tuple("AttnDownBlock2D" if i in self.attention else "DownBlock2D" for i in levels),
            "up_block_types": tuple("AttnUpBlock2D" if i in self.attention else "UpBlock2D" for i in reversed(levels)),
            "add_attention": self.middle_attention,
            "attention_head_dim": self.head_channels,
            "norm_num_groups": self.groups,
            "dropout": self.dropout,
            "num_class_embeds": classes,
        }


class Extractor(Frozen):
    """The shape of a classifier before the data set is known (see distill.extractor.ExtractorConfig)."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    architecture: Literal["densenet", "cnn"]
    widths: tuple[int, ...]
    growth: int = 12
    stem: int = 24


class ClassifierTraining(Frozen):
    """SGD with momentum .9 and a cosine rate, the best epoch on a held-out part kept."""

    epochs: int = Field(ge=1)
    batch: int = Field(ge=2)
    rate: Positive = 0.1
    decay: NonNegative = 5e-4
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    shift: int = Field(default=1, ge=0)  # pixels of random translation
    cutout: int = Field(default=0, ge=0)  # side of the erased square; 0: none
    flip: bool = False
    auto_augment: bool = False  # the policy learned on CIFAR-10 (distill.auto_augment)


class Training(Frozen):
    """Adam steps of one stage."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: Positive
    warmup: int = Field(default=0, ge=0)
    cosine: bool = True  # the rate falls to 0; False: it stays
    clip: Positive = 1.0  # of the gradient's norm
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # teacher only: distillation runs without
    flip: bool = False


class Compute(Frozen):
    """What changes the speed and, within rounding, nothing else. null: on where the device is CUDA, off on a CPU.

    Only `device_noise` gives other draws, and those of one kind of GPU are not another's. It is for steps that are not
    much longer than a CPU core takes to draw their noise: 10 ms for 512 images of 32 × 32 × 3.
    """

    bf16: bool | None = None  # products of the networks' passes; never the schedule, the targets or the KL terms
    channels_last: bool | None = None  # memory order of the networks
    compile: bool | None = None  # torch.compile: a minute for each kind of network
    device_noise: bool = False  # the training noise is drawn where it is used


class Taus(Frozen):
    """Temperatures. `cfd` by the student's step count, since the paper's differ by fold."""

    cfd: dict[int, Positive] = Field(default={4: 0.9, 2: 1.0, 1: 0.85})
    relation: Positive = 1.0  # of II_P2P and IS_P2P
    memory: Positive = 0.1  # of M_P2P


class Losses(Frozen):
    """Weights of the terms; a term of weight 0 is not computed. Eq. 10 is cfd 1, is_p2p α, m_p2p β."""

    pd: NonNegative = 0.0
    cfd: NonNegative = 0.0
    ii_p2p: NonNegative = 0.0
    is_p2p: NonNegative = 0.0
    m_p2p: NonNegative = 0.0
    lpips: NonNegative = 0.0

    @property
    def uses_features(self) -> bool:
        return any((self.cfd, self.ii_p2p, self.is_p2p, self.m_p2p))

    @model_validator(mode="after")
    def _some(self) -> Losses:
        if not any(self.model_dump().values()):
            raise ValueError("at least one loss needs a weight above 0")
        return self


class Memory(Frozen):
    """The pixel queue of M_P2P."""

    capacity: int = Field(default=20_000, ge=1)  # N_q
    draw: int = Field(default=2048, ge=1)  # V
    per_image: int = Field(default=1, ge=1)  # K
    head_rate: Positive | None = None  # of the projection head's own Adam; None: the student's rate, held constant


class Lpips(Frozen):
    """The perceptual distance of PD+LPIPS (distill.lpips)."""

    backbone: str | None = None  # file of torchvision's weights of `network`, .pth or .safetensors
    network: Literal["vgg", "alex"] = "vgg"  # as the lpips package names them
    # Side that smaller images are magnified to. None: seven times theirs, at most 224, which is what Song et al. (2023)
    # give CIFAR-10 and all that is larger, and at least the 32 that the networks need.
    size: int | None = Field(default=None, ge=32)
    weight: NonNegative = 1.0


class Sfddm(Frozen):
    """Single-fold distillation to `steps` steps, in place of halvings (distill.subsequence)."""

    steps: int = Field(ge=1)  # T′
    subsequence: tuple[int, ...] | None = None  # φ_1 … φ_T′ = T = first_steps; None: even
    start: Literal["teacher", "random"] = "teacher"  # the student's first weights
    hidden: NonNegative = 1.0  # weight of the hidden map's term

    @model_validator(mode="after")
    def _fits(self) -> Sfddm:
        if self.subsequence is not None and len(self.subsequence) != self.steps:
            raise ValueError(f"a subsequence of {len(self.subsequence)} indices makes no student of {self.steps} steps")
        return self


class Preset(Frozen):
    """A whole training run. Stages: extractor, judge, teacher, one halving after another down to one step."""

    name: str
    data: str  # what `--data` takes
    image_size: int | None = None
    conditional: bool = False
    seed: int = Field(default=0, ge=0)
    network: Network
    extractor: Extractor
    extractor_training: ClassifierTraining
    judge: Extractor | None = None  # a second classifier that no loss sees, for evaluation
    judge_training: ClassifierTraining | None = None
    teacher: Training
    first_steps: int  # the teacher's sampling steps where halving begins
    base_steps: int = 8  # halvings above it are PD, below it `losses`
    pd: Training
    pd_late: bool = False  # PD below base_steps trains as above it, and twice as long at 2 and 1 steps (see halving)
    terms: tuple[Term, ...] = Field(default=METHODS["rdd"], min_length=1)  # of the loss below base_steps
    alpha: NonNegative = 1.0  # weight of IS_P2P, and of II_P2P where it stands in for it
    beta: NonNegative = 0.1  # weight of M_P2P
    taus: Taus = Taus()
    memory: Memory = Memory()
    lpips: Lpips = Lpips()
    distillation: Training
    compute: Compute = Compute()
    sfddm: Sfddm | None = None  # single-fold distillation from the teacher, in place of the halvings
    teacher_folder: str | None = None  # a foreign diffusers teacher, turned into ours in place of `teacher`
    conversion: Training | None = None  # of that; None: as `pd`
    student: Network | None = None  # a smaller student, taught at first_steps before the halvings
    student_training: Training | None = None  # of that; None: as `pd`

    @property
    def method(self) -> str:
        """The name of the terms: a method's, or the terms themselves joined, as cfd+ii_p2p."""
        if self.sfddm:
            return "sfddm"
        return next((name for name, terms in METHODS.items() if set(terms) == set(self.terms)), "+".join(self.terms))

    @property
    def losses(self) -> Losses:
        """The terms with their weights, Eq. 10."""
        weights = {"pd": 1.0, "cfd": 1.0, "ii_p2p": self.alpha, "is_p2p": self.alpha, "m_p2p": self.beta}
        weights["lpips"] = self.lpips.weight
        return Losses(**{term: weights[term] for term in self.terms})

    def halving(self, steps: int) -> Training:
        """Of the student of `steps` steps.

        PD's authors train the 2- and 1-step students twice as long as the others; with `pd_late` so does PD below
        base_steps. Without it every method has the same `distillation` there.
        """
        if steps >= self.base_steps:
            return self.pd
        if not self.pd_late or self.method != "pd":
            return self.distillation
        return self.pd.model_copy(update={"steps": self.pd.steps * (2 if steps <= 2 else 1)})

    @model_validator(mode="after")
    def _fits(self) -> Preset:
        for steps in (self.first_steps, self.base_steps):
            if steps < 1 or steps & (steps - 1):
                raise ValueError(f"{steps} sampling steps cannot be halved down to 1: use a power of two")
        if self.first_steps < self.base_steps:
            raise ValueError("first_steps must be at least base_steps")
        if (self.judge is None) != (self.judge_training is None):
            raise ValueError("judge and judge_training come together")
        return self


DIGITS = Preset(
    name="digits",
    data="digits",
    network=Network(channels=(32, 64), blocks=1, groups=8),
    extractor=Extractor(name="digits_densenet", architecture="densenet", widths=(4, 4), growth=12, stem=24),
    extractor_training=ClassifierTraining(epochs=30, batch=64, shift=1),
    judge=Extractor(name="digits_cnn", architecture="cnn", widths=(32, 64)),
    judge_training=ClassifierTraining(epochs=30, batch=64, shift=1),
    teacher=Training(steps=2000, batch=128, rate=1e-3, warmup=100, ema=0.995),
    first_steps=32,
    pd=Training(steps=500, batch=128, rate=5e-4),
    # α as the paper's for ImageNet: on these features the relations' gradient is a thirtieth of CFD's, and with α = 1
    # nothing holds the background black (mean level 10 of 255 where the data are black; 4 with α = 100).
    alpha=100.0,
    memory=Memory(draw=1024),  # half of the paper's V, which it finds to matter little, for half of the time
    distillation=Training(steps=400, batch=128, rate=5e-4),
)

# DenseNet-201 with the CIFAR stem: 1920 features on a grid of an eighth of the image's side.
_DENSENET_201 = Extractor(name="densenet201", architecture="densenet", widths=(6, 12, 48, 32), growth=32, stem=64)

# The paper's: DDPM's network (Ho et al. 2020), 35.7 M parameters, and 1024 steps halved down to 8 by PD.
CIFAR10 = Preset(
    name="cifar10",
    data="cifar10",
    network=Network(channels=(128, 256, 256, 256), blocks=2, attention=(1,), dropout=0.1),
    extractor=_DENSENET_201,
    extractor_training=ClassifierTraining(
        epochs=200, batch=128, rate=0.1, shift=4, cutout=16, flip=True, auto_augment=True
    ),
    teacher=Training(steps=800_000, batch=128, rate=2e-4, warmup=5000, cosine=False, ema=0.9999, flip=True),
    first_steps=1024,
    pd=Training(steps=10_000, batch=128, rate=5e-5, flip=True),
    pd_late=True,
    alpha=1.0,
    beta=0.1,
    taus=Taus(cfd={4: 0.9, 2: 1.0, 1: 0.85}, relation=1.0, memory=0.1),
    distillation=Training(steps=20_000, batch=128, rate=5e-5, flip=True),
)

# The same recipe for a network a phone runs: half the width in every level, 8.9 M parameters.
CIFAR10_EDGE = CIFAR10.model_copy(
    update={
        "name": "cifar10-edge",
        "network": Network(channels=(64, 128, 128, 128), blocks=2, attention=(1,), dropout=0.1),
    }
)

# The paper's: class-conditional, 116.5 M parameters.
IMAGENET64 = Preset(
    name="imagenet64",
    data="imagenet64",
    image_size=64,
    conditional=True,
    network=Network(channels=(128, 256, 384, 512), blocks=3, attention=(2, 3)),
    extractor=_DENSENET_201,
    extractor_training=ClassifierTraining(
        epochs=90, batch=256, rate=0.1, shift=8, cutout=32, flip=True, auto_augment=True
    ),
    teacher=Training(steps=1_000_000, batch=256, rate=2e-5, cosine=False, ema=0.9999, flip=True),
    first_steps=1024,
    pd=Training(steps=50_000, batch=256, rate=1e-4, flip=True),
    pd_late=True,
    alpha=100.0,
    beta=0.1,
    taus=Taus(cfd={4: 0.85, 2: 0.85, 1: 0.85}, relation=1.0, memory=0.1),
    distillation=Training(steps=50_000, batch=256, rate=1e-4, flip=True),
)

PRESETS: dict[str, Preset] = {value.name: value for value in (DIGITS, CIFAR10, CIFAR10_EDGE, IMAGENET64)}


def preset(name: str) -> Preset:
    """The preset of that name. Raises UsageError for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def resolve(
    name: str,
    *,
    data: str | None = None,
    image_size: int | None = None,
    method: str | None = None,
    losses: str | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    sfddm_steps: int | None = None,
    subsequence: str | None = None,
    teacher: Path | None = None,
    student_config: Path | None = None,
) -> Preset:
    """A preset with what the command line changes. settings: KEY=VALUE, a dotted key and a JSON value or a word.

    Raises UsageError for an unknown preset, method or key, and for a value that does not fit.
    """
    values = preset(name).model_dump()
    if data is not None:
        # Absolute, so that run.json still points there when it is read from another folder.
        values["data"] = str(Path(data).resolve()) if os.path.exists(data) else data
    if image_size is not None:
        values["image_size"] = image_size
    if seed is not None:
        values["seed"] = seed
    if teacher is not None:
        values["teacher_folder"] = str(teacher.resolve() if os.path.exists(teacher) else teacher)  # else a Hub id
    if student_config is not None:
        values["student"] = _read_network(student_config).model_dump()
    if (sfddm_steps is not None or subsequence is not None) and method != "sfddm":
        raise UsageError("--sfddm-steps and --subsequence go with --method sfddm")
    if method == "sfddm":
        if losses is not None:
            raise UsageError("--losses names the terms of the halvings, and sfddm has none")
        values["sfddm"] = _sfddm(sfddm_steps, subsequence)
    elif method is not None:
        if method not in METHODS:
            raise UsageError(f"there is no method {method!r}: choose from {', '.join([*METHODS, 'sfddm'])}")
        values["terms"] = METHODS[method]
    if losses is not None:
        if method is not None:
            raise UsageError("--losses names the terms and --method a set of them: give one of the two")
        values["terms"] = tuple(losses.split(","))
    found = _validated(values, settings)
    if found.lpips.backbone is None:
        return found
    return changed(found, [f"lpips.backbone={json.dumps(str(Path(found.lpips.backbone).expanduser().resolve()))}"])


def changed(preset: Preset, settings: Sequence[str]) -> Preset:
    """The preset with these settings, KEY=VALUE. Raises UsageError for one that does not fit."""
    return _validated(preset.model_dump(), settings)


def _validated(values: dict[str, Any], settings: Sequence[str]) -> Preset:
    for setting in settings:
        _set(values, setting)
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _sfddm(steps: int | None, subsequence: str | None) -> dict[str, Any]:
    """Values of `Sfddm` as the command line gives them."""
    if subsequence is None:
        return Sfddm.model_construct(steps=1 if steps is None else steps).model_dump()
    try:
        indices = tuple(int(word) for word in subsequence.split(","))
    except ValueError:
        raise UsageError(f"--subsequence {subsequence} is not a list of whole numbers, as 1,5,20") from None
    # Not validated here: the whole preset is, once --set has had its say.
    return Sfddm.model_construct(steps=len(indices) if steps is None else steps, subsequence=indices).model_dump()


def _read_network(path: Path) -> Network:
    """The Network of a JSON file. Raises MissingError or CorruptError."""
    from ..files import read_model

    return read_model(path, Network)


def _set(values: dict[str, Any], setting: str) -> None:
    """Change one value of a preset's dump in place."""
    key, equals, text = setting.partition("=")
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not equals or not isinstance(place, dict) or last not in place:
        raise UsageError(f"--set {setting}: give KEY=VALUE with a key of the preset, as teacher.steps=100")
    try:
        place[last] = json.loads(text)
    except ValueError:
        place[last] = text
