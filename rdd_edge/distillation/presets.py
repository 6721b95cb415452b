"""The presets, and the changes that options and `--set` make to them."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError
from ..reading.documents import first_fault, read_model, read_toml
from .config import (
    METHODS,
    ClassifierTraining,
    Compute,
    Extractor,
    Memory,
    Network,
    Preset,
    Refining,
    Sfddm,
    Taus,
    Training,
)
from .settings import PRESET, example, set_table, set_text

DIGITS = Preset(
    name="digits",
    data="digits",
    network=Network(channels=(32, 64), blocks=1, groups=8),
    extractor=Extractor(name="digits_densenet", architecture="densenet", widths=(4, 4), growth=12, stem=24),
    extractor_training=ClassifierTraining(epochs=30, batch=64, shift=1),
    judge=Extractor(name="digits_cnn", architecture="cnn", widths=(32, 64)),
    judge_training=ClassifierTraining(epochs=30, batch=64, shift=1),
    # The cap of min-SNR: without it the loss is that of the lowest noise, and 2,000 steps end with twice the distance.
    most_weight=5.0,
    teacher=Training(steps=600, batch=128, rate=2e-3, warmup=100, ema=0.995),
    first_steps=8,
    pd=Training(steps=500, batch=128, rate=5e-4),
    # α as the paper's for ImageNet: on these features the gradient of IS_P2P is a thirtieth of CFD's, and with α = 1
    # the background does not stay black (mean level 10 of 255 where the data are black; 4 with α = 100).
    alpha=100.0,
    memory=Memory(draw=1024),  # half of the paper's V, which matters little there, for half of the time
    distillation=Training(steps=60, batch=128, rate=5e-4),
    # Critics of 32 channels do as well as of 64 in two thirds of the time, which is spent better here than above.
    refining=Refining(training=Training(steps=400, batch=128, rate=2e-4, ema=0.99), critic_rate=8e-4, width=32),
)

# DenseNet-201 with the CIFAR stem: 1920 features at an eighth of the image's side.
_DENSENET_201 = Extractor(name="densenet201", architecture="densenet", widths=(6, 12, 48, 32), growth=32, stem=64)

# As in the paper: DDPM's network (Ho et al. 2020), 35.7 M parameters, and 1024 steps halved down to 8 by PD.
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
    refining=Refining(
        training=Training(steps=20_000, batch=128, rate=5e-5, ema=0.999, flip=True), critic_rate=2e-4, shift=4
    ),
)

# For a phone and for a short training, whose steps `--minutes` chooses: half of CIFAR10's width in every level, 8.9 M
# parameters, a smaller extractor, larger batches and rates, and no dropout, which only slows down a short training.
CIFAR10_EDGE = CIFAR10.model_copy(
    update={
        "name": "cifar10-edge",
        "network": Network(channels=(64, 128, 128, 128), blocks=2, attention=(1,)),
        "extractor": Extractor(name="cifar10_densenet", architecture="densenet", widths=(6,) * 4, growth=24, stem=48),
        "extractor_training": ClassifierTraining(
            epochs=60, batch=256, shift=4, cutout=16, flip=True, auto_augment=True
        ),
        "teacher": Training(steps=100_000, batch=512, rate=5e-4, warmup=500, ema=0.9995, flip=True),
        "first_steps": 64,
        "pd": Training(steps=5000, batch=512, rate=1e-4, flip=True),
        "pd_late": False,
        "distillation": Training(steps=5000, batch=512, rate=1e-4, flip=True),
        "compute": Compute(device_noise=True),
    }
)

# As in the paper: class-conditional, 116.5 M parameters.
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
    refining=Refining(
        training=Training(steps=50_000, batch=256, rate=5e-5, ema=0.999, flip=True), critic_rate=2e-4, shift=8
    ),
)

# For one's own images of 16, 32 or 64 pixels a side on any machine: a level more or less for images of twice or half
# the size (`_fit`), and steps that `--minutes` replaces by what fits the time. In minutes on a CPU the number of steps
# counts for more than the width: see the measurements in docs/tutorial.md.
SMALL = Preset(
    name="small",
    data="digits",
    image_size=32,
    network=Network(channels=(16, 32, 64), blocks=1, groups=8),
    extractor=Extractor(name="small_densenet", architecture="densenet", widths=(4, 4, 4)),
    extractor_training=ClassifierTraining(epochs=30, batch=64, shift=2, flip=True),
    judge=Extractor(name="small_cnn", architecture="cnn", widths=(32, 64, 128)),
    judge_training=ClassifierTraining(epochs=30, batch=64, shift=2, flip=True),
    most_weight=5.0,
    teacher=Training(steps=4000, batch=64, rate=1e-3, warmup=100, ema=0.995, flip=True),
    first_steps=8,
    pd=Training(steps=500, batch=64, rate=5e-4, flip=True),
    alpha=100.0,
    memory=Memory(draw=1024),
    distillation=Training(steps=300, batch=64, rate=5e-4, flip=True),
    refining=Refining(
        training=Training(steps=600, batch=64, rate=2e-4, ema=0.99, flip=True), critic_rate=8e-4, width=32, shift=2
    ),
)

PRESETS: dict[str, Preset] = {value.name: value for value in (DIGITS, SMALL, CIFAR10, CIFAR10_EDGE, IMAGENET64)}


def preset(name: str) -> Preset:
    """The preset of that name. Raises UsageError for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def resolve(
    base: str | Preset | None,
    *,
    data: str | None = None,
    image_size: int | None = None,
    method: str | None = None,
    losses: str | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    sfddm_steps: int | None = None,
    subsequence: str | None = None,
    extractor_from: Path | None = None,
    teacher: Path | None = None,
    student_config: Path | None = None,
    student: Path | None = None,
    refine: bool = True,
    conditional: bool | None = None,
    config: Path | None = None,
) -> Preset:
    """A preset, by its name, with changes. settings: KEY=VALUE, a dotted key and JSON, a word, or a list.

    base: None for the preset that `config` names, or digits.
    config: TOML file of settings, which the other arguments override.

    Raises UsageError for an unknown preset, method or key and for an invalid value; MissingError or CorruptError for
    the file student_config.
    """
    table = read_toml(config) if config is not None else {}
    base = base or str(table.get(PRESET, DIGITS.name))
    table.pop(PRESET, None)
    values = (preset(base) if isinstance(base, str) else base).model_dump()
    if data is None and isinstance(table.get("data"), str):
        data = table["data"]
    side = image_size if image_size is not None else table.get("image_size")
    if base == SMALL.name and isinstance(side, int):
        _fit(values, side)
    set_table(values, table)
    if data is not None:
        values["data"] = _absolute(data)
    # Figures of other data must not look comparable.
    if data is not None and values["name"] == SMALL.name and not table.keys() & {"extractor", "judge"}:
        words = "_".join(re.findall("[a-z0-9]+", Path(data).name.lower())) or "data"
        values["extractor"]["name"], values["judge"]["name"] = f"{words[:40]}_densenet", f"{words[:40]}_cnn"
    if image_size is not None:
        values["image_size"] = image_size
    if conditional is not None:
        values["conditional"] = conditional
    if seed is not None:
        values["seed"] = seed
    if extractor_from is not None:
        values["extractor_from"] = _absolute(extractor_from)
    if teacher is not None:
        values["teacher_folder"] = _absolute(teacher)
    if student is not None:
        values["teacher_folder"] = values["teacher_folder"] if teacher else None  # of an inherited preset
        values["student_folder"] = _absolute(student)
    if not refine:
        values["refining"] = None
    if student_config is not None:
        values["student"] = read_model(student_config, Network).model_dump()
    if (sfddm_steps is not None or subsequence is not None) and method != "sfddm":
        raise UsageError("--sfddm-steps and --subsequence need --method sfddm")
    if method == "sfddm":
        if losses is not None:
            raise UsageError("--losses has no effect on --method sfddm: leave out one of them")
        values["sfddm"] = _sfddm(sfddm_steps, subsequence)
    elif method is not None:
        if method not in METHODS:
            raise UsageError(f"there is no method {method!r}: choose from {', '.join([*METHODS, 'sfddm'])}")
        values["terms"], values["sfddm"] = METHODS[method], None
    if losses is not None:
        if method is not None:
            raise UsageError("--losses and --method both choose the loss terms: give one of them")
        values["terms"], values["sfddm"] = tuple(losses.split(",")), None
    resolved = _validated(values, settings)
    if resolved.lpips.backbone is None:
        return resolved
    backbone = str(Path(resolved.lpips.backbone).expanduser().resolve())
    return changed(resolved, [f"lpips.backbone={json.dumps(backbone)}"])


def _absolute(given: str | Path) -> str:
    """A path that exists made absolute, so that run.json is valid in another working directory; or a name or Hub id."""
    return str(Path(given).resolve() if os.path.exists(given) else given)


def _fit(values: dict[str, Any], side: int) -> None:
    """Give the preset `small` so many levels that the coarsest one is 6 to 11 pixels wide, if `side` can be halved.

    Smaller images lose the finest level, which costs the most; larger ones have the coarsest twice.
    """
    levels = max(2, min(4, round(math.log2(max(side, 1) / 8)) + 1))
    while levels > 1 and side % 2 ** (levels - 1):
        levels -= 1
    for part, key in (("network", "channels"), ("extractor", "widths"), ("judge", "widths")):
        widths = getattr(getattr(SMALL, part), key)
        values[part][key] = widths[-levels:] + widths[-1:] * (levels - len(widths))


def changed(preset: Preset, settings: Sequence[str]) -> Preset:
    """The preset with these settings, KEY=VALUE. Raises UsageError for an invalid one."""
    return _validated(preset.model_dump(), settings)


def _validated(values: dict[str, Any], settings: Sequence[str]) -> Preset:
    before = copy.deepcopy(values)
    for setting in settings:
        set_text(values, setting)
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        raise UsageError(first_fault(error) + example(before, error.errors()[0]["loc"])) from None


def _sfddm(steps: int | None, subsequence: str | None) -> dict[str, Any]:
    """Values of `Sfddm` from the options. They are validated with the whole preset, after all settings are applied."""
    try:
        phi = None if subsequence is None else tuple(int(word) for word in subsequence.split(","))
    except ValueError:
        raise UsageError(f"--subsequence {subsequence} is not a list of whole numbers, e.g. 1,5,20") from None
    count = steps if steps is not None else len(phi or (1,))
    return Sfddm.model_construct(steps=count, subsequence=phi).model_dump()
