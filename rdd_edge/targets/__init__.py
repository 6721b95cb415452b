"""A folder per platform. Discovery reads folder names; a target's code is imported only when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from ..errors import UsageError
from .base import Target

__all__ = ["load_target", "target_names"]


def target_names() -> tuple[str, ...]:
    """Names of the targets: the folders on this package's path that are packages, sorted. Imports none of them."""
    return tuple(sorted({path.parent.name for folder in __path__ for path in Path(folder).glob("*/__init__.py")}))


def load_target(name: str) -> Target:
    """The target of that name, its heavy dependencies not yet imported. Raises UsageError for an unknown name."""
    if name not in target_names():
        raise UsageError(f"there is no target {name!r}: choose from {', '.join(target_names())}")
    return cast(Target, importlib.import_module(f"{__name__}.{name}").target)
