"""Android: an ExecuTorch program whose work XNNPACK does on the phone's CPU."""

from __future__ import annotations

from .target import AndroidTarget

__all__ = ["AndroidTarget", "target"]

target = AndroidTarget()
