"""Android: an ExecuTorch program for XNNPACK on the CPU or Vulkan on the GPU of a phone."""

from __future__ import annotations

from .target import AndroidTarget

__all__ = ["AndroidTarget", "target"]

target = AndroidTarget()
