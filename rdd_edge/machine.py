"""What this machine is, in the terms of a record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from .results import Device

__all__ = ["this_machine"]


def this_machine() -> Device:
    """The machine this process runs on; None where it does not tell."""
    return Device(
        name=platform.node() or "this machine",
        system=f"{platform.system()} {platform.release()}".strip(),
        machine=platform.machine(),
        processor=_processor(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
    )


def _cores() -> int | None:
    """Cores this process may use, which under a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str | None:
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() or None
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith(("model name", "Model")) and ":" in line:
            return line.split(":", 1)[1].strip() or None
    return platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
