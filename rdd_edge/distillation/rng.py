"""Random draws keyed by (seed, stage, step): the same in a resumed run and for any number of ranks.

Each step draws for the global batch, in the order of its sample indices, and a rank keeps its own rows.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator"]


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """A CPU generator for one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
