"""Rewrites of the exported graph: the same function with less work, or in a form that a backend runs better.

Each pass edits a GraphModule in place and is valid for any UNet2DModel; it leaves a graph without its pattern as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.export import ExportedProgram
from torch.fx import GraphModule

from ...errors import UsageError
from ...graphs.cleanup import export_again, graph_of, remove_dead, simplify
from .attention import attention
from .fold_time import fold_time
from .group_norm import group_norm
from .upsample import upsample, upsample_subpixel
from .winograd import winograd

__all__ = ["REWRITES", "apply_rewrites"]

# In the order in which they run: after folding, fewer nodes are left for the later passes to match.
REWRITES: dict[str, Callable[[GraphModule], None]] = {
    "simplify": simplify,
    "fold_time": fold_time,
    "upsample": upsample,
    "upsample_subpixel": upsample_subpixel,  # has the pattern of `upsample`, after which it finds nothing
    "attention": attention,
    "group_norm": group_norm,
    "winograd": winograd,  # last: it changes the layout of the maps that the other passes match
}


def apply_rewrites(program: ExportedProgram, names: tuple[str, ...]) -> ExportedProgram:
    """The program with the named passes applied, in the order of REWRITES. Raises UsageError for an unknown name."""
    if unknown := [name for name in names if name not in REWRITES]:
        raise UsageError(f"there is no rewrite {unknown[0]!r}: choose from {', '.join(REWRITES)}")
    if not names:
        return program
    gm = graph_of(program)
    for name, rewrite in REWRITES.items():
        if name in names:
            rewrite(gm)
            remove_dead(gm)
    return export_again(gm, program)
