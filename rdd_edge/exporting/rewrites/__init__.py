"""Exact rewrites of the exported graph: same function, less work or a form that a backend runs better.

Each pass edits a GraphModule in place and holds for any UNet2DModel; a pass that finds nothing to do changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.export import ExportedProgram
from torch.fx import GraphModule

from ...errors import UsageError
from ...graphs.cleanup import export_again, remove_dead, simplify
from .attention import attention
from .fold_time import fold_time
from .group_norm import group_norm
from .upsample import upsample
from .upsample_subpixel import upsample_subpixel
from .winograd import winograd

__all__ = ["REWRITES", "apply_rewrites", "check_rewrites"]

# In the order in which they run: folding leaves less for the later ones to match.
REWRITES: dict[str, Callable[[GraphModule], None]] = {
    "simplify": simplify,
    "fold_time": fold_time,
    "upsample": upsample,
    "upsample_subpixel": upsample_subpixel,  # the same pair, so after `upsample` nothing is left for it
    "attention": attention,
    "group_norm": group_norm,
    "winograd": winograd,  # last: what the others leave stays as it is, in pairs of rows
}


def check_rewrites(names: tuple[str, ...]) -> None:
    """Raise UsageError for a name that is no rewrite."""
    for name in names:
        if name not in REWRITES:
            raise UsageError(f"there is no rewrite {name!r}: choose from {', '.join(REWRITES)}")


def apply_rewrites(program: ExportedProgram, names: tuple[str, ...]) -> ExportedProgram:
    """The program with the named passes applied, in the order of REWRITES. Raises UsageError for an unknown name."""
    check_rewrites(names)
    if not names:
        return program
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    for name, rewrite in REWRITES.items():
        if name in names:
            rewrite(gm)
            remove_dead(gm)
    return export_again(gm, program)
