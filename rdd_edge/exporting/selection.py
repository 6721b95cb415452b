"""Which bundles an export builds, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bundle import MANIFEST
from ..errors import UsageError
from ..targets import load_target
from ..targets.base import Target
from .budget import Budget
from .search import MIXED

EVERY = "all"


def plan_bundles(
    targets: tuple[str, ...],
    precision: str | Sequence[str] | None,
    out: Path,
    budget: Budget | None = None,
    backend: str | None = None,
) -> list[tuple[Target, str]]:
    """Each target and precision to build. Raises UsageError for one that does not exist.

    precision: one or several that every target has, or EVERY; None for mixed where there is a budget, else each
    target's default.
    """
    if not targets:
        raise UsageError("name at least one target to export for")
    asked = (precision,) if isinstance(precision, str) else tuple(precision or ())
    if not asked and budget is not None:
        asked = (MIXED,)
    loaded = [load_target(name) for name in dict.fromkeys(targets)]
    chosen = [(target, name) for target in loaded for name in _precisions(target, asked, backend)]
    if MIXED in asked and budget is None:
        raise UsageError("mixed precision needs a quality budget: give --min-psnr, in dB, or --max-fd-rise")
    if budget is not None and all(name != MIXED for _, name in chosen):
        raise UsageError("--min-psnr and --max-fd-rise apply to mixed precision only: use --precision mixed")
    wanted = [(target, name) for target, name in chosen if name != MIXED or budget is not None]
    for target, name in wanted:
        folder = out / f"{target.name}-{name}"
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise UsageError(f"{folder} exists and is not a bundle: choose another --out")
    return wanted


def _precisions(target: Target, asked: tuple[str, ...], backend: str | None) -> list[str]:
    """The precisions asked for, each once, or a backend's default; "fp16" of the backend vulkan is vulkan-fp16."""
    backends = list(dict.fromkeys(row.backend for row in target.precisions))
    if backend is not None and backend not in backends:
        raise UsageError(f"the {target.name} target has no backend {backend!r}: it has {', '.join(backends)}")
    names = [row.name for row in target.precisions if row.backend == (backend or backends[0])]
    found: list[str] = []
    for precision in asked or names[:1]:
        if precision == EVERY:
            found += names
        elif backend is None:
            found.append(target.precision(precision).name)
        elif name := next((name for name in (precision, f"{backend}-{precision}") if name in names), None):
            found.append(name)
        else:
            has = f"it has {', '.join(names)}"
            raise UsageError(f"the {target.name} target has no precision {precision!r} on {backend}: {has}")
    return list(dict.fromkeys(found))
