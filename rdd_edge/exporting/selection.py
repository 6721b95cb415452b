"""Which bundles an export is asked for, and whether it can be: before any work."""

from __future__ import annotations

from pathlib import Path

from ..bundle import MANIFEST
from ..errors import UsageError
from ..targets import load_target
from ..targets.base import Target
from .budget import Budget
from .search import MIXED

__all__ = ["EVERY", "plan_bundles"]

EVERY = "all"


def plan_bundles(
    targets: tuple[str, ...], precision: str | None, out: Path, budget: Budget | None = None, backend: str | None = None
) -> list[tuple[Target, str]]:
    """The targets and precisions that are asked for. Raises UsageError for one that cannot be.

    precision: one that every target has, or EVERY; None: mixed where there is a budget, else each target's default.
    """
    if not targets:
        raise UsageError("name at least one target to export for")
    if precision is None and budget is not None:
        precision = MIXED
    loaded = [load_target(name) for name in dict.fromkeys(targets)]
    chosen = [(target, name) for target in loaded for name in _precisions(target, precision, backend)]
    mixed = any(name == MIXED for _, name in chosen)
    if precision == MIXED and budget is None:
        raise UsageError(
            "mixed precision is found under a budget: say what it has to hold with --min-psnr, in dB, or --max-fd-rise"
        )
    if budget is not None and not mixed:
        raise UsageError("--min-psnr and --max-fd-rise are budgets of mixed precision: nothing asked for is mixed")
    wanted = [(target, name) for target, name in chosen if name != MIXED or budget is not None]
    for target, name in wanted:
        folder = out / f"{target.name}-{name}"
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise UsageError(f"{folder} exists and is not a bundle, so it will not be replaced: choose another --out")
    return wanted


def _precisions(target: Target, precision: str | None, backend: str | None) -> tuple[str, ...]:
    """One, or every one of the backend; "fp16" of a backend vulkan is its vulkan-fp16."""
    if backend is not None and backend not in target.backends:
        has = ", ".join(target.backends)
        raise UsageError(f"the {target.name} target has no backend {backend!r}: it has {has}")
    of_backend = target.backends[backend or next(iter(target.backends))]
    if precision is None:
        return of_backend[:1]
    if precision == EVERY:
        return of_backend
    own = target.precisions if backend is None else target.backends[backend]
    for name in (precision, f"{backend}-{precision}"):
        if name in own:
            return (name,)
    raise UsageError(f"the {target.name} target has no precision {precision!r}: it has {', '.join(own)}")
