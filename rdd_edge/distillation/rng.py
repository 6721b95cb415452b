"""Random draws keyed by (seed, stage, step): the same on a resumed run and on any number of processes.

Each step draws for the global batch, in the order of its sample indices, and a process keeps its own rows.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator"]


def generator(seed: int, stage: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
