"""What this machine is, in the terms of a record."""

from __future__ import annotations

from .results import Device
from .sensors import machine

__all__ = ["this_machine"]


def this_machine() -> Device:
    """The machine this process runs on; None where it does not tell."""
    return Device.model_validate(machine())
