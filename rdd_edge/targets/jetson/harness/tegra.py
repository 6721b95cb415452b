"""The sensors of a Jetson: tegrastats during a benchmark run, nvpmodel and jetson_clocks once.

The tests have lines of tegrastats from boards with JetPack 5 to 7, whose formats differ.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdd_edge.portable.sensors import Sensors, integers

INTERVAL_MS = 500
FIRST_LINE_SECONDS = 3.0
TIMEOUT_SECONDS = 10.0
TOTAL = ("VDD_IN", "VIN")  # input of the module on Orin Nano and NX, of the board on Thor
# Without a total: all rails of AGX Orin and Thor with external supply. VDDQ_VDD2_1V8AO is supplied by VIN_SYS_5V0 and
# would count twice.
RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")


@dataclass(frozen=True)
class Sample:
    """One line of tegrastats; None for what it does not contain."""

    power_w: float | None
    temperature_c: float | None  # of the hottest sensor
    clock_mhz: float | None  # of the fastest core
    gpu_clock_mhz: float | None  # of the fastest cluster
    gpu_load: float | None  # 0 … 1


def parse(line: str) -> Sample:
    watts = {name: int(value) / 1000.0 for name, value in re.findall(r"(\w+) (\d+)mW", line)}
    total = [watts[name] for name in TOTAL if name in watts]
    rails = [watts[name] for name in RAILS if name in watts]
    temperatures = [float(value) for value in re.findall(r"\w+@(-?\d+(?:\.\d+)?)C", line)]
    cores = re.search(r"CPU \[(.*?)\]", line)
    gpu = re.search(r"GR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+))?", line)
    return Sample(
        power_w=total[0] if total else sum(rails) if rails else None,
        temperature_c=max((t for t in temperatures if t > -100), default=None),  # -256: a sensor that is off
        clock_mhz=max(map(float, re.findall(r"@(\d+)", cores[1])), default=None) if cores else None,
        gpu_clock_mhz=max(float(f) for f in gpu[2].split(",") if f) if gpu and gpu[2] else None,
        gpu_load=int(gpu[1]) / 100.0 if gpu and gpu[1] else None,
    )


def power_mode(output: str) -> str | None:
    """The name of the mode in the output of `nvpmodel -q`, e.g. MAXN_SUPER."""
    match = re.search(r"^NV Power Mode\s*:\s*(\S.*?)\s*$", output, re.MULTILINE)
    return match[1] if match else None


def clocks_locked(output: str) -> bool | None:
    """Whether the GPU's minimum clock is its maximum in the output of `jetson_clocks --show`."""
    match = re.search(r"^GPU MinFreq=(\d+) MaxFreq=(\d+)", output, re.MULTILINE)
    return match[1] == match[2] if match else None


def versions(release: Path = Path("/etc/nv_tegra_release")) -> dict[str, str]:
    """The version of Linux for Tegra, e.g. 36.4.4, where the machine runs it."""
    match = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release.read_text()) if release.is_file() else None
    return {"l4t": f"{match[1]}.{match[2]}"} if match else {}


def modes() -> tuple[dict[str, Any], dict[str, str]]:
    """As Sensors.modes."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, command, read in (
        ("power_mode", ["nvpmodel", "-q"], power_mode),
        ("clocks_locked", ["jetson_clocks", "--show"], clocks_locked),
    ):
        output, reason = _output(command)
        found[name] = None if output is None else read(output)
        if found[name] is None:
            missing[name] = reason or f"{' '.join(command)} does not report it"
    return found, missing


class Tegra(Sensors):
    """A Jetson's sensors; on another machine, those of any Linux machine."""

    def __init__(self, overcurrent: Path = Path("/sys/class/hwmon")) -> None:
        self._samples: list[tuple[float, Sample]] = []
        self._overcurrent = overcurrent
        self._events = self._count_events()
        try:
            command = ["tegrastats", "--interval", str(INTERVAL_MS)]
            self._process: subprocess.Popen[str] | None = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            threading.Thread(target=self._read, daemon=True).start()
        except OSError:
            self._process = None

    def condition(self, when: str, since: float) -> dict[str, Any]:
        """tegrastats in place of sysfs: power, clocks and load are means, the temperature is the highest."""
        condition = super().condition(when, since)
        samples = self._within(since)
        for name in ("power_w", "clock_mhz", "gpu_clock_mhz", "gpu_load"):
            values = [value for sample in samples if (value := getattr(sample, name)) is not None]
            condition[name] = sum(values) / len(values) if values else condition[name]
        hottest = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
        condition["temperature_c"] = max(hottest, default=condition["temperature_c"])
        if (events := self._count_events()) is not None and self._events is not None:
            condition["throttled"] = bool(condition["throttled"]) or events > self._events
        return condition

    def modes(self) -> tuple[dict[str, Any], dict[str, str]]:
        return modes()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._samples.append((time.monotonic(), parse(line)))

    def _within(self, since: float) -> list[Sample]:
        """The samples since then, or the last one where there are none. Waits for the first line of tegrastats."""
        deadline = time.monotonic() + FIRST_LINE_SECONDS
        while self._process and self._process.poll() is None and not self._samples and time.monotonic() < deadline:
            time.sleep(0.02)
        inside = [sample for when, sample in self._samples if when >= since]
        return inside or [sample for _, sample in self._samples[-1:]]

    def _count_events(self) -> int | None:
        """Number of times since boot that the board was throttled for drawing too much current."""
        counts = integers(str(self._overcurrent), "hwmon*/oc*_event_cnt")
        return sum(counts) if counts else None


def _output(command: Sequence[str]) -> tuple[str | None, str | None]:
    """The output of a program, or None and the reason."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError:
        return None, f"{command[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{command[0]} did not run: {type(error).__name__}"
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[:200]
        return None, f"{' '.join(command)} failed (it may need root): {reason or done.returncode}"
    return done.stdout, None
