"""iPhone and iPad: a Core ML package that the device compiles for its Neural Engine, GPU or CPU."""

from __future__ import annotations

from .target import IosTarget

__all__ = ["IosTarget", "target"]

target = IosTarget()
