"""coremltools without its progress bars, warnings, and the packages whose models it could convert as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from typing import Any

from ...dependencies import hidden, import_or_explain, silenced

COMPUTE_UNITS = "all"  # MLComputeUnits: CPU, GPU and Neural Engine, between which Core ML chooses


OTHER_SOURCES = ("executorch", "libsvm", "sklearn", "tensorflow", "torchao", "xgboost")  # importing them takes 7 s


def import_coremltools(module: str = "coremltools") -> Any:
    """coremltools, with optimize.coreml loaded, or a module of it. Raises DependencyError."""
    with hidden(*OTHER_SOURCES):
        import_or_explain("coremltools.optimize.coreml", "the ios target", "ios")
    return import_or_explain(module, "the ios target", "ios")


@contextmanager
def no_bars() -> Iterator[None]:
    """Silence warnings, loggers and tqdm, which cannot be disabled otherwise once it is imported."""
    from tqdm import tqdm

    original = tqdm.__init__
    tqdm.__init__ = partialmethod(original, disable=True)
    try:
        with silenced():
            yield
    finally:
        tqdm.__init__ = original
