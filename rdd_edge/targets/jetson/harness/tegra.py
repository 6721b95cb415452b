"""What a Jetson tells of itself: tegrastats while a run goes on, nvpmodel and jetson_clocks once.

tegrastats prints a line a second; its forms over JetPack 5 to 7 are in the tests, each from a board.
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

from rdd_edge.portable.sensors import Sensors

__all__ = ["Sample", "Tegra", "clocks_locked", "parse", "power_mode"]

INTERVAL_MS = 500
FIRST_LINE_SECONDS = 3.0
ANSWER_SECONDS = 10.0
WHOLE = ("VDD_IN", "VIN")  # the module's input on Orin Nano and NX, the board's on Thor
# Where nothing measures the whole: on AGX Orin and Thor these rails are all that is fed from outside. VDDQ_VDD2_1V8AO
# is fed from VIN_SYS_5V0 and would count twice.
RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")


@dataclass(frozen=True)
class Sample:
    """One line of tegrastats. None: it does not tell."""

    power_w: float | None
    temperature_c: float | None  # of the hottest sensor
    clock_mhz: float | None  # of the fastest core
    gpu_clock_mhz: float | None  # of the fastest cluster
    gpu_load: float | None  # 0 … 1


def parse(line: str) -> Sample:
    watts = {name: int(value) / 1000.0 for name, value in re.findall(r"(\w+) (\d+)mW", line)}
    whole = [watts[name] for name in WHOLE if name in watts]
    parts = [watts[name] for name in RAILS if name in watts]
    temperatures = [float(value) for value in re.findall(r"\w+@(-?\d+(?:\.\d+)?)C", line)]
    cores = re.search(r"CPU \[(.*?)\]", line)
    gpu = re.search(r"GR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+))?", line)
    return Sample(
        power_w=whole[0] if whole else sum(parts) if parts else None,
        temperature_c=max((t for t in temperatures if t > -100), default=None),  # -256: a sensor that is off
        clock_mhz=max(map(float, re.findall(r"@(\d+)", cores[1])), default=None) if cores else None,
        gpu_clock_mhz=max(float(f) for f in gpu[2].split(",") if f) if gpu and gpu[2] else None,
        gpu_load=int(gpu[1]) / 100.0 if gpu and gpu[1] else None,
    )


def power_mode(answer: str) -> str | None:
    """The name in what `nvpmodel -q` prints, as MAXN_SUPER."""
    found = re.search(r"^NV Power Mode\s*:\s*(\S.*?)\s*$", answer, re.MULTILINE)
    return found[1] if found else None


def clocks_locked(answer: str) -> bool | None:
    """Whether `jetson_clocks --show` has the GPU's least clock at its most, which is what jetson_clocks sets."""
    found = re.search(r"^GPU MinFreq=(\d+) MaxFreq=(\d+)", answer, re.MULTILINE)
    return found[1] == found[2] if found else None


class Tegra(Sensors):
    """A Jetson's sensors; on another machine they are those of any machine, and the reason is given."""

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
        """tegrastats' figures over what sysfs tells: power, clock and load as means, temperature as the highest."""
        told = super().condition(when, since)
        samples = self._within(since)
        for name in ("power_w", "clock_mhz", "gpu_clock_mhz", "gpu_load"):
            values = [value for sample in samples if (value := getattr(sample, name)) is not None]
            told[name] = sum(values) / len(values) if values else told[name]
        hottest = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
        told["temperature_c"] = max(hottest, default=told["temperature_c"])
        if (events := self._count_events()) is not None and self._events is not None:
            told["throttled"] = bool(told["throttled"]) or events > self._events
        return told

    def modes(self) -> tuple[dict[str, Any], dict[str, str]]:
        asked = {
            "power_mode": (["nvpmodel", "-q"], power_mode),
            "clocks_locked": (["jetson_clocks", "--show"], clocks_locked),
        }
        found: dict[str, Any] = {}
        missing: dict[str, str] = {}
        for name, (command, read) in asked.items():
            answer, reason = _answer(command)
            found[name] = None if answer is None else read(answer)
            if found[name] is None:
                missing[name] = reason or f"{' '.join(command)} does not tell"
        return found, missing

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._samples.append((time.monotonic(), parse(line)))

    def _within(self, since: float) -> list[Sample]:
        """The samples since then; where there is none yet, the last one, for whose first line a little is waited."""
        until = time.monotonic() + FIRST_LINE_SECONDS
        while self._process is not None and self._process.poll() is None and not self._samples:
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        inside = [sample for when, sample in self._samples if when >= since]
        return inside or [sample for _, sample in self._samples[-1:]]

    def _count_events(self) -> int | None:
        """How often the board was slowed for drawing too much current, since it was started."""
        counts = []
        for path in sorted(self._overcurrent.glob("hwmon*/oc*_event_cnt")):
            try:
                counts.append(int(path.read_text()))
            except (OSError, ValueError):
                continue
        return sum(counts) if counts else None


def _answer(command: Sequence[str]) -> tuple[str | None, str | None]:
    """What a program prints, or None and why."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
    except FileNotFoundError:
        return None, f"{command[0]} is not on this machine"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{command[0]} does not answer: {type(error).__name__}"
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        return None, f"{' '.join(command)} failed, as it does for a user who is not root: {said or done.returncode}"
    return done.stdout, None
