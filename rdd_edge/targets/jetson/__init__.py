"""NVIDIA Jetson: an ONNX graph that TensorRT builds into an engine on the board itself."""

from __future__ import annotations

from .target import JetsonTarget

__all__ = ["JetsonTarget", "target"]

target = JetsonTarget()
