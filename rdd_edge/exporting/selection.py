"""Which bundles an export builds, checked before any work."""

from __future__ import annotations

from pathlib import Path

from ..bundle import MANIFEST
from ..errors import UsageError
from ..targets import load_target
from ..targets.base import Target
from .budget import Budget
from .search import MIXED

EVERY = "all"


def plan_bundles(
    targets: tuple[str, ...], precision: str | None, out: Path, budget: Budget | None = None, backend: str | None = None
) -> list[tuple[Target, str]]:
    """Each target and precision to build. Raises UsageError for one that does not exist.

    precision: one that every target has, or EVERY; None for mixed where there is a budget, else each target's default.
    """
    if not targets:
        raise UsageError("name at least one target to export for")
    if precision is None and budget is not None:
        precision = MIXED
    loaded = [load_target(name) for name in dict.fromkeys(targets)]
    chosen = [(target, name) for target in loaded for name in _precisions(target, precision, backend)]
    if precision == MIXED and budget is None:
        raise UsageError("mixed precision needs a quality budget: give --min-psnr, in dB, or --max-fd-rise")
    if budget is not None and all(name != MIXED for _, name in chosen):
        raise UsageError("--min-psnr and --max-fd-rise apply to mixed precision only: use --precision mixed")
    wanted = [(target, name) for target, name in chosen if name != MIXED or budget is not None]
    for target, name in wanted:
        folder = out / f"{target.name}-{name}"
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise UsageError(f"{folder} exists and is not a bundle: choose another --out")
    return wanted


def _precisions(target: Target, precision: str | None, backend: str | None) -> tuple[str, ...]:
    """One precision, or all of a backend; "fp16" of the backend vulkan is vulkan-fp16."""
    backends = list(dict.fromkeys(row.backend for row in target.precisions))
    if backend is not None and backend not in backends:
        raise UsageError(f"the {target.name} target has no backend {backend!r}: it has {', '.join(backends)}")
    names = [row.name for row in target.precisions if row.backend == (backend or backends[0])]
    if precision is None:
        return (names[0],)
    if precision == EVERY:
        return tuple(names)
    if backend is None:
        return (target.precision(precision).name,)
    for name in (precision, f"{backend}-{precision}"):
        if name in names:
            return (name,)
    raise UsageError(f"the {target.name} target has no precision {precision!r} on {backend}: it has {', '.join(names)}")
