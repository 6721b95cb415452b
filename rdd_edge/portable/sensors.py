"""Description and sensors of a Linux or macOS machine: processor, temperature, clock, power.

Only the standard library, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

NO_SENSORS = "no sensor for temperature, clock or power is available"
NO_MODES = "power modes cannot be read on this machine"
NO_SENSOR = "no sensor reports it"
NOT_REPORTED = {  # by field of a condition; NO_SENSOR for the others
    "thermal_state": "this system has no thermal states",
    "thermal_headroom": "this system has no thermal states",
    "battery_level": "this machine has no battery",
    "charging": "this machine has no battery",
    "foreground": "the artifact does not run in an app with a screen",
}


class Sensors:
    """Reads the machine's state during a benchmark run. Subclass it for a board with more sensors."""

    def condition(self, when: str, since: float) -> dict[str, Any]:
        """The state "before", "during" or "after" the timed runs, which started at `since` by time.monotonic()."""
        return condition(when)

    def modes(self) -> tuple[dict[str, Any], dict[str, str]]:
        """power_mode and clocks_locked, and for each that is None the reason."""
        names = ("power_mode", "clocks_locked")
        return dict.fromkeys(names), dict.fromkeys(names, NO_MODES)

    def close(self) -> None:
        """Stop reading sensors."""


def machine() -> dict[str, Any]:
    """Name, system, instruction set, processor, usable cores, memory; None for what cannot be read."""
    board = _read("/proc/device-tree/model").strip("\0 \n")  # where there is a device tree, as on a Jetson
    return {
        "name": board or platform.node() or "this machine",
        "system": f"{platform.system()} {platform.release()}".strip(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }


def condition(when: str) -> dict[str, Any]:
    """Temperature of the hottest zone in °C, clock of the fastest core in MHz, power drawn in W, and throttling.

    when: "before", "during" or "after".  None for what cannot be read.
    """
    temperatures = [t / 1000.0 for t in integers("/sys/class/thermal", "thermal_zone*/temp") if 0 < t < 200_000]
    clocks = [c / 1000.0 for c in integers("/sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_cur_freq")]
    watts = [p / 1e6 for p in integers("/sys/class/hwmon", "hwmon*/power1_input")]
    return {
        "when": when,
        "temperature_c": max(temperatures, default=None),
        "clock_mhz": max(clocks, default=None),
        "gpu_clock_mhz": None,
        "gpu_load": None,
        "power_w": max(watts, default=None),
        "throttled": _throttled(Path("/sys/class/thermal"), Path("/sys/devices/platform/soc")),
        "thermal_state": None,
        "thermal_headroom": None,
        **_battery(Path("/sys/class/power_supply")),
        "foreground": None,
    }


def _battery(supplies: Path) -> dict[str, Any]:
    """Level of the first battery, 0 … 1, and whether it is connected to external power; None for what is not known."""
    battery = next((path for path in sorted(supplies.glob("*")) if _read(path / "type").strip() == "Battery"), None)
    if battery is None:
        return {"battery_level": None, "charging": None}
    level, status = _read(battery / "capacity").strip(), _read(battery / "status").strip()
    return {
        "battery_level": min(int(level) / 100.0, 1.0) if level.isdigit() else None,
        "charging": status != "Discharging" if status and status != "Unknown" else None,
    }


def _throttled(thermal: Path, firmware: Path) -> bool | None:
    """Whether a cooling device or a Raspberry Pi's firmware slows the machine down.

    Fans and devices of unknown state do not count. The firmware's value is hexadecimal; its lowest four bits are
    under-voltage, capped clock, throttling and the soft temperature limit at this moment
    (raspberrypi.com/documentation/computers/os.html, get_throttled).
    """
    states = []
    for device in sorted(thermal.glob("cooling_device*")):
        kind, state = _read(device / "type").strip(), _read(device / "cur_state").strip()
        if kind and "fan" not in kind.lower() and state.isdigit():
            states.append(int(state) > 0)
    flags = _read(firmware / "soc:firmware" / "get_throttled").strip()
    if re.fullmatch("[0-9a-fA-F]{1,8}", flags):
        states.append(int(flags, 16) & 0b1111 > 0)
    return any(states) if states else None


def peak_memory_bytes() -> int | None:
    """Peak physical memory of this process: Python, NumPy, the runtime's libraries, artifact and buffers.

    VmHWM on Linux rather than ru_maxrss, which a child inherits from the process it was forked from.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes there
    return _status_bytes("VmHWM")


def resident_memory_bytes() -> int | None:
    """Physical memory that this process holds now; None where the system does not report it."""
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int | None:
    found = re.search(rf"^{name}:\s*(\d+) kB", _read("/proc/self/status"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def _read(path: str | Path) -> str:
    """The text of a file, empty where it cannot be read, as for a sensor that is switched off."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def integers(folder: str, pattern: str) -> list[int]:
    """The numbers in the files that match, without those that cannot be read."""
    texts = [_read(path).strip() for path in sorted(Path(folder).glob(pattern))]
    return [int(text) for text in texts if re.fullmatch(r"-?\d+", text)]


def _processor() -> str | None:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return model.group(1).strip() if model else platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
