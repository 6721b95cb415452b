"""Models that ship with the package: a diffusers folder each, beside this file, made by `rdd-edge pack`.

Wherever a command takes a checkpoint it takes such a folder's name. What exists under a path of that name comes first.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import MissingError

__all__ = ["FOLDER", "located", "shipped"]

FOLDER = Path(__file__).parent


def shipped() -> tuple[str, ...]:
    """Names of the models that ship, sorted."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def located(path: Path) -> Path:
    """`path` where it exists, else the folder of the shipped model of that name. Raises MissingError."""
    if path.exists():
        return path
    names = shipped()
    if str(path) in names:
        return FOLDER / path
    listed = ", ".join(names) or "none"
    raise MissingError(f"there is no checkpoint {path}: give a folder, or the name of a shipped model ({listed})")
