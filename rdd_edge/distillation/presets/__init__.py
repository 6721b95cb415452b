"""The presets, and the changes that options and `--set` make to them.

A preset is a file beside this one, in the form of `distill --config`: it holds every setting without a default, or
names the preset that it differs from.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...errors import UsageError
from ...reading.documents import first_fault, read_model, read_toml
from ..config import METHODS, Network, Preset, Sfddm
from ..settings import PRESET, example, set_table, set_text

NAMES = ("digits", "small", "cifar10", "cifar10-edge", "imagenet64")
SMALL = "small"  # whose levels and names follow the data


@cache
def preset(name: str) -> Preset:
    """The preset of that name. Raises UsageError for an unknown one."""
    if name not in NAMES:
        raise UsageError(f"there is no preset {name!r}: choose from {', '.join(NAMES)}")
    table = read_toml(Path(__file__).with_name(f"{name}.toml"))
    if PRESET not in table:
        return Preset(name=name, **table)
    values = preset(table.pop(PRESET)).model_dump() | {"name": name}
    set_table(values, table)
    return Preset.model_validate(values)


PRESETS: dict[str, Preset] = {name: preset(name) for name in NAMES}


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
    named = str(table.pop(PRESET, "digits"))
    base = base or named
    values = (preset(base) if isinstance(base, str) else base).model_dump()
    if data is None and isinstance(table.get("data"), str):
        data = table["data"]
    side = image_size if image_size is not None else table.get("image_size")
    if base == SMALL and isinstance(side, int):
        _fit(values, side)
    set_table(values, table)
    # Figures of other data must not look comparable.
    if data is not None and values["name"] == SMALL and not table.keys() & {"extractor", "judge"}:
        words = "_".join(re.findall("[a-z0-9]+", Path(data).name.lower())) or "data"
        values["extractor"]["name"], values["judge"]["name"] = f"{words[:40]}_densenet", f"{words[:40]}_cnn"
    given = {
        "data": _absolute(data),
        "image_size": image_size,
        "conditional": conditional,
        "seed": seed,
        "extractor_from": _absolute(extractor_from),
        "teacher_folder": _absolute(teacher),
        "student_folder": _absolute(student),
        "student": student_config and read_model(student_config, Network).model_dump(),
    }
    if student is not None:
        values["teacher_folder"] = None  # of an inherited preset
    if not refine:
        values["refining"] = None
    values |= {key: value for key, value in given.items() if value is not None}
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


def _absolute(given: str | Path | None) -> str | None:
    """A path that exists made absolute, so that run.json is valid in another working directory; or a name or Hub id."""
    return None if given is None else str(Path(given).resolve() if os.path.exists(given) else given)


def _fit(values: dict[str, Any], side: int) -> None:
    """Give the preset `small` so many levels that the coarsest one is 6 to 11 pixels wide, if `side` can be halved.

    Smaller images lose the finest level, which costs the most; larger ones have the coarsest twice.
    """
    levels = max(2, min(4, round(math.log2(max(side, 1) / 8)) + 1))
    while levels > 1 and side % 2 ** (levels - 1):
        levels -= 1
    for part, key in (("network", "channels"), ("extractor", "widths"), ("judge", "widths")):
        widths = values[part][key]
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
