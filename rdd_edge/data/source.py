"""What a data set on disk offers to the cache, and the choice of its reader by what lies there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .decode import Batch

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """A data set before it is decoded.

    files: all that the images and labels are made from, in the order of reading; they lie below `root`, or are it.
    batches: given the image size asked for (None: as they are), the decoded images in the order of `files`.
    classes: their names by label; None where the source has none, and then a labelled set gets their numbers.
    """

    name: str
    root: Path
    files: tuple[Path, ...]
    batches: Callable[[int | None], Iterator[Batch]]
    classes: tuple[str, ...] | None = None
