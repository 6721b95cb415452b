"""The settings of a training run: frozen models, to and from JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from ..diffusion.checkpoint import REFINED, last_stage
from ..schema import Frozen

Term = Literal["pd", "cfd", "ii_p2p", "is_p2p", "m_p2p", "lpips"]
METHODS: dict[str, tuple[Term, ...]] = {
    "pd": ("pd",),
    "pd-lpips": ("pd", "lpips"),
    "rcfd": ("cfd",),
    "rdd": ("cfd", "is_p2p", "m_p2p"),
}


class Network(Frozen):
    """The shape of a UNet2DModel; `unet` gives diffusers' own arguments."""

    channels: tuple[int, ...] = Field(min_length=1)  # per level, from full resolution down
    blocks: int = Field(ge=1)  # residual blocks per level
    attention: tuple[int, ...] = ()  # levels with self-attention, 0 the full resolution
    middle_attention: bool = True  # self-attention at the lowest resolution
    head_channels: int | None = None  # channels per attention head; None: one head
    groups: int = 32  # of group normalisation
    dropout: NonNegativeFloat = 0.0  # of the teacher's training; distillation runs without

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
    """The shape of a classifier before the data set is known (see metrics.networks.ExtractorConfig)."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")  # gives the metric fd_<name>
    architecture: Literal["densenet", "cnn"]  # densenet or cnn
    widths: tuple[int, ...]  # layers of each block of a densenet, channels of each level of a cnn
    growth: int = 12  # channels that each layer of a densenet adds
    stem: int = 24  # channels of a densenet's first convolution


class ClassifierTraining(Frozen):
    """SGD with momentum .9 and a cosine rate; the epoch that is best on a held-out part is kept."""

    epochs: int = Field(ge=1)  # passes over the images
    batch: int = Field(ge=2)  # images in a step
    rate: PositiveFloat = 0.1  # initial learning rate
    decay: NonNegativeFloat = 5e-4  # weight decay
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the images by which the best epoch is chosen
    shift: int = Field(default=1, ge=0)  # pixels of random translation
    cutout: int = Field(default=0, ge=0)  # side of the erased square; 0: none
    flip: bool = False  # mirror half of the images
    auto_augment: bool = False  # the policy learned on CIFAR-10 (see auto_augment.py)


class Training(Frozen):
    """Adam steps of one stage."""

    steps: int = Field(ge=1)  # optimizer steps
    batch: int = Field(ge=1)  # images in a step
    rate: PositiveFloat  # learning rate
    warmup: int = Field(default=0, ge=0)  # steps in which the rate rises from 0, at most a fifth of all
    cosine: bool = True  # the rate falls to 0; False: it is constant
    clip: PositiveFloat = 1.0  # of the gradient's norm
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the average of the weights; only of teacher and refining
    flip: bool = False  # mirror half of the images


class Refining(Frozen):
    """The adversarial last stage, which sees real images (see stages/refining.py)."""

    training: Training  # of the student; `clip` bounds the critics' gradient as well
    critic_rate: PositiveFloat  # a few times the student's: slower critics let it leave out what is rare
    anchor: NonNegativeFloat = 0.5  # weight of the squared distance to the student's images before the stage
    width: int = Field(default=64, ge=1)  # channels of the critics
    penalty: NonNegativeFloat = 2.0  # weight of R1
    penalty_every: int = Field(default=4, ge=1)  # steps between penalties, which count as many times as much
    shift: int = Field(default=1, ge=0)  # pixels of random translation of what the critics see


class Compute(Frozen):
    """Options that change the speed and, within rounding, nothing else. None: on if the device is CUDA.

    Only `device_noise` changes the draws, and they then depend on the kind of GPU. It is for steps that are not much
    longer than a CPU core takes to draw their noise: 10 ms for 512 images of 32 × 32 × 3.
    """

    bf16: bool | None = None  # matrix products of the networks; never the schedule, the targets or the KL terms
    channels_last: bool | None = None  # memory order of the networks
    compile: bool | None = None  # torch.compile, off by default: see ComputeContext.compiles
    device_noise: bool = False  # draw the training noise on the device


class Taus(Frozen):
    """Temperatures. `cfd` is by the student's sampling steps, since the paper's differ per fold."""

    # of CFD, for the student with so many sampling steps
    cfd: dict[int, PositiveFloat] = Field(default={4: 0.9, 2: 1.0, 1: 0.85})
    relation: PositiveFloat = 1.0  # of II_P2P and IS_P2P
    memory: PositiveFloat = 0.1  # of M_P2P


class Losses(Frozen):
    """Weights of the terms; a term of weight 0 is not computed. Eq. 10 is cfd 1, is_p2p α, m_p2p β."""

    pd: NonNegativeFloat = 0.0
    cfd: NonNegativeFloat = 0.0
    ii_p2p: NonNegativeFloat = 0.0
    is_p2p: NonNegativeFloat = 0.0
    m_p2p: NonNegativeFloat = 0.0
    lpips: NonNegativeFloat = 0.0

    @property
    def uses_features(self) -> bool:
        return any((self.cfd, self.ii_p2p, self.is_p2p, self.m_p2p))

    @model_validator(mode="after")
    def _check(self) -> Losses:
        if not any(self.model_dump().values()):
            raise ValueError("at least one loss needs a weight above 0")
        return self


class Memory(Frozen):
    """The pixel queue of M_P2P."""

    capacity: int = Field(default=20_000, ge=1)  # N_q: pixels in the queue
    draw: int = Field(default=2048, ge=1)  # V: pixels drawn from it in each step
    per_image: int = Field(default=1, ge=1)  # K: pixels that each image adds to it
    head_rate: PositiveFloat | None = None  # of the projection head's Adam, constant; None: the student's initial rate


class Lpips(Frozen):
    """The perceptual distance of PD+LPIPS (see losses/lpips.py)."""

    backbone: str | None = None  # file with torchvision's weights of `network`, .pth or .safetensors
    network: Literal["vgg", "alex"] = "vgg"  # the names in the lpips package
    # Side that smaller images are magnified to. None: seven times their own, but at most 224, which is the size that
    # Song et al. (2023) use for CIFAR-10, and at least the 32 that the networks need.
    size: int | None = Field(default=None, ge=32)
    weight: NonNegativeFloat = 1.0  # of the term


class Sfddm(Frozen):
    """Single-fold distillation to `steps` steps, in place of halvings (see diffusion/subsequence.py)."""

    steps: int = Field(ge=1)  # T′: sampling steps of the student
    subsequence: tuple[int, ...] | None = None  # φ_1 … φ_T′ = T = first_steps; None: evenly spaced
    # Initial weights of the student. From the teacher's and on an even grid both networks give the same and nothing is
    # learned: the student is then the teacher with DDIM.
    start: Literal["teacher", "random"] = "random"
    hidden: NonNegativeFloat = 1.0  # weight of the hidden map's term

    @model_validator(mode="after")
    def _check(self) -> Sfddm:
        if self.subsequence is not None and len(self.subsequence) != self.steps:
            raise ValueError(f"a subsequence of {len(self.subsequence)} indices does not fit {self.steps} steps")
        return self


class Preset(Frozen):
    """A training run. Stages: extractor, judge, teacher, one halving after another down to one step, refining."""

    name: str  # of the preset
    data: str  # a value of `--data`
    image_size: int | None = None  # side to which images are cropped and resized; None: they have one size
    conditional: bool = False  # whether the model takes a class label
    seed: int = Field(default=0, ge=0)  # of every random draw
    network: Network  # of the teacher, and of the student unless it is smaller
    extractor: Extractor
    extractor_from: str | None = None  # an extractor's folder, or torchvision's weights, in place of training one
    extractor_training: ClassifierTraining
    judge: Extractor | None = None  # a second classifier that no loss uses, for evaluation
    judge_training: ClassifierTraining | None = None  # of the judge
    teacher: Training
    most_weight: float | None = Field(default=None, ge=1, allow_inf_nan=False)  # cap of ω_t; None: e^10
    first_steps: int  # the teacher's sampling steps before the first halving
    base_steps: int = 8  # halvings down to it are PD, those below it `losses`
    pd: Training
    pd_late: bool = False  # PD below base_steps trains as above it, and twice as long at 2 and 1 steps (see halving)
    terms: tuple[Term, ...] = Field(default=METHODS["rdd"], min_length=1)  # of the loss below base_steps
    alpha: NonNegativeFloat = 1.0  # weight of IS_P2P, and of II_P2P in its place
    beta: NonNegativeFloat = 0.1  # weight of M_P2P
    taus: Taus = Taus()
    memory: Memory = Memory()
    lpips: Lpips = Lpips()
    distillation: Training
    compute: Compute = Compute()
    refining: Refining | None = None  # of a one-step student; None: it stays as distillation left it
    sfddm: Sfddm | None = None  # single-fold distillation from the teacher, in place of the halvings
    teacher_folder: str | None = None  # a foreign diffusers teacher, converted in place of training one
    conversion: Training | None = None  # of the foreign teacher; None: as `pd`
    student: Network | None = None  # a smaller student, taught at first_steps before the halvings
    student_training: Training | None = None  # of the smaller student; None: as `pd`
    student_folder: str | None = None  # a one-step student to refine, in place of training one

    @property
    def method(self) -> str:
        """The method with these terms, or the terms joined, e.g. cfd+ii_p2p."""
        if self.sfddm:
            return "sfddm"
        return next((name for name, terms in METHODS.items() if set(terms) == set(self.terms)), "+".join(self.terms))

    @property
    def losses(self) -> Losses:
        """The terms with their weights, Eq. 10."""
        weights = {"pd": 1.0, "cfd": 1.0, "ii_p2p": self.alpha, "is_p2p": self.alpha, "m_p2p": self.beta}
        weights["lpips"] = self.lpips.weight
        return Losses(**{term: weights[term] for term in self.terms})

    @property
    def refines(self) -> bool:
        """Whether the run ends with the refining stage, which only a one-step student can have."""
        return last_stage(self.refining is not None, self.sfddm.steps if self.sfddm else 1) == REFINED

    def halving(self, steps: int) -> Training:
        """The training of the student with `steps` sampling steps.

        PD's authors train the 2- and 1-step students twice as long as the others; with `pd_late` PD does the same
        below base_steps. Without it all methods share `distillation` there.
        """
        if steps >= self.base_steps:
            return self.pd
        if not self.pd_late or self.method != "pd":
            return self.distillation
        return self.pd.model_copy(update={"steps": self.pd.steps * (2 if steps <= 2 else 1)})

    @model_validator(mode="after")
    def _check(self) -> Preset:
        for steps in (self.first_steps, self.base_steps):
            if steps < 1 or steps & (steps - 1):
                raise ValueError(f"{steps} sampling steps cannot be halved down to 1: use a power of two")
        if self.first_steps < self.base_steps:
            raise ValueError("first_steps must be at least base_steps")
        if self.student_folder is not None and self.refining is None:
            raise ValueError("student_folder gives a student to refine, and refining is off")
        if self.student_folder is not None and self.teacher_folder is not None:
            raise ValueError("a given student needs no teacher: leave out one of them")
        if (self.judge is None) != (self.judge_training is None):
            raise ValueError("judge and judge_training must be given together")
        return self
