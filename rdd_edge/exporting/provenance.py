"""Keep torch's record of where each node of a graph came from small.

Every pass of a compiler writes into each node a deep copy of the whole history of the node it was made from. A lowering
runs dozens of passes, and copying histories that nobody reads takes a large part of its time. Inside the block copies
of a history are the history itself, which is safe, because a history is only ever read once it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx.traceback import NodeSource

__all__ = ["shared_provenance"]


@contextmanager
def shared_provenance() -> Iterator[None]:
    """Deep copies of a node's history share it, inside the block."""
    NodeSource.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]
