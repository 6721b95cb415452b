"""Models that ship with the package: a diffusers folder each, beside this file, made by `rdd-edge pack`.

Wherever a command takes a checkpoint, it takes the name of such a folder. An existing path of that name comes first.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import MissingError
from ..hub import HUB_ID, read_from_hub

__all__ = ["FOLDER", "located", "shipped"]

FOLDER = Path(__file__).parent


def shipped() -> tuple[str, ...]:
    """Names of the models that ship, sorted."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def located(path: Path) -> Path:
    """The folder of a checkpoint: `path` where it exists, else the shipped model or the Hub's model of that name.

    A path such as runs/digits has the form of a Hub id. So where its first folder exists, only the Hub's cache is
    looked through and nothing is downloaded. Raises MissingError where there is none, and what `read_from_hub` raises.
    """
    if os.path.exists(path):  # unlike Path.exists, it raises nothing for a path that cannot exist
        return path
    names = shipped()
    if str(path) in names:
        return FOLDER / path
    if HUB_ID.fullmatch(path.as_posix()):
        return read_from_hub(path.as_posix(), download=not os.path.exists(path.parent))
    listed = ", ".join(names) or "none"
    raise MissingError(
        f"there is no checkpoint {path}: give a folder, the name of a shipped model ({listed}), or a Hugging Face Hub "
        "id such as google/ddpm-cifar10-32"
    )
