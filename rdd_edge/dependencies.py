"""Imports of optional dependencies, without the warnings that they print on import.

torchao warns about missing CUDA extensions on a CPU, coremltools about libraries that exist only on macOS, diffusers
about torchao. The user can do nothing about them. Errors are exceptions and are not hidden.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .errors import DependencyError


@contextmanager
def silenced() -> Iterator[None]:
    """Silence warnings and every logger below CRITICAL inside the block."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Inside the block, packages that have not been imported yet seem not to be installed.

    For a library that imports all the packages it could work with.
    """
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: "import of … halted"
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def import_or_explain(module: str, needed_by: str, extra: str) -> ModuleType:
    """Import a package of an extra. Raises DependencyError with the pip command when it is not installed."""
    try:
        with silenced():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0]
        raise DependencyError(f"{needed_by} needs {package}: pip install 'rdd-edge[{extra}]'") from None


def import_diffusers() -> Any:
    """diffusers, with UNet2DModel and the schedulers loaded: it imports them, and warns, on first use."""
    diffusers = import_or_explain("diffusers", "loading a network", "distill")
    with silenced():
        _ = diffusers.UNet2DModel, diffusers.DDIMScheduler
    return diffusers
