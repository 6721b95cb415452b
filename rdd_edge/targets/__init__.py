"""One folder per platform. A target is imported by name, only when it is used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from ..errors import UsageError
from .base import Target

__all__ = ["load_target", "target_names"]


def target_names() -> tuple[str, ...]:
    """Sorted names of the targets, which are the packages in this folder. Does not import them."""
    return tuple(sorted({path.parent.name for folder in __path__ for path in Path(folder).glob("*/__init__.py")}))


def load_target(name: str) -> Target:
    """The target with this name. Does not import its converter. Raises UsageError for an unknown name."""
    if name not in target_names():
        raise UsageError(f"there is no target {name!r}: choose from {', '.join(target_names())}")
    return cast(Target, importlib.import_module(f"{__name__}.{name}").target)
