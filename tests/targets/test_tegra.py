"""tegrastats, nvpmodel and jetson_clocks as boards printed them, and as fakes on the PATH print them."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

import rdd_edge.targets
from rdd_edge.benchmarking.record import Condition

# Jetson AGX Orin, L4T 36.4.4 (JetPack 6): github.com/lesomnus/tegra-exporter, test of its package stats
AGX_ORIN = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) CPU [14%@2188,5%@2112,8%@2035,"
    "14%@2201,46%@1267,47%@1267,2%@1267,10%@1267,4%@1036,5%@1036,6%@1036,10%@1036] EMC_FREQ 3%@2133 GR3D_FREQ 0%@[0,0] "
    "NVENC 79%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 "
    "cpu@52.562C soc2@48.437C soc0@49.093C tj@52.562C soc1@49.656C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW "
    "VIN_SYS_5V0 4707mW/4707mW"
)
# Jetson AGX Thor, L4T 38.4.0 (JetPack 7.1), the same test
THOR_38 = (
    "05-17-2026 10:00:33 RAM 4280/125773MB (lfb 29x4MB) SWAP 0/2048MB (cached 0MB) CPU [0%@972,0%@972,0%@972,0%@972,"
    "1%@972,0%@972,1%@972,0%@972,0%@2601,17%@2601,1%@972,9%@972,0%@972,1%@972] EMC_FREQ 0%@665 GR3D_FREQ @[0,0,0] "
    "NVENC0_FREQ @0 NVENC1_FREQ @0 NVDEC0_FREQ @0 NVDEC1_FREQ @0 NVJPG0_FREQ @0 VIC off OFA_FREQ @0 PVA0_FREQ off "
    "APE 300 cpu@35.25C tj@36.031C soc012@36.062C soc345@34.5C VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4923mW/4544mW "
    "VIN_SYS_5V0 4327mW/4227mW"
)
# Jetson AGX Thor, L4T 39.2.0 (JetPack 7.2), the same test
THOR_39 = (
    "07-23-2026 15:29:26 RAM 9101/125811MB (lfb 19x4MB) SWAP 0/2048MB (cached 0MB) CPU [39%@2160,20%@2160,16%@1944,"
    "15%@1944,17%@972,15%@972,19%@2214,22%@2214,13%@2430,20%@2430,26%@972,19%@972,15%@1836,22%@1836] EMC_FREQ 7%@3200 "
    "GR3D_FREQ @[314,314,314] NVENC0_FREQ @1556 NVENC1_FREQ @1556 NVDEC0_FREQ @1556 NVDEC1_FREQ @1556 "
    "NVJPG0_FREQ @1556 VIC 59%@423 OFA_FREQ @1556 PVA0_FREQ off APE 300 cpu@34.843C/34.843C tj@35.906C/35.906C "
    "soc012@34.437C/34.437C "
    "gpu@35.906C/35.906C soc345@34.406C/34.406C VDD_GPU 4925mW/4925mW/4925mW VDD_CPU_SOC_MSS 8710mW/8710mW/8710mW "
    "VIN_SYS_5V0 6767mW/6767mW/6767mW"
)
# The end of a line of Thor where VIN is told, L4T 39, from a public telemetry parser's test
THOR_VIN = (
    "GR3D_FREQ 87%@[1574,1574,1574] tj@66.625C/66.625C VDD_GPU 37939mW/8660mW/37939mW VIN 124486mW/36487mW/124486mW"
)
# Jetson Orin Nano, JetPack 6: a parser's test in Rust of 2025-11-30, and JetPack 7's form of September 2026
ORIN_NANO = (
    "11-30-2025 13:26:01 RAM 2461/7620MB (lfb 3x2MB) SWAP 1243/3810MB (cached 5MB) CPU [19%@729,14%@729,22%@729,8%@729,"
    "15%@729,17%@729] EMC_FREQ 4%@2133 GR3D_FREQ 0%@[305] NVDEC off NVJPG off NVJPG1 off VIC off OFA off APE 200 "
    "cpu@46.531C soc2@47.312C soc0@46.593C gpu@48.218C tj@48.843C soc1@48.843C VDD_IN 5704mW/5704mW "
    "VDD_CPU_GPU_CV 831mW/831mW VDD_SOC 1624mW/1624mW"
)
ORIN_NANO_7 = (
    "09-19-2026 13:33:02 RAM 2850/7486MB (lfb 33x4MB) CPU [2%@729,0%@729,0%@729,0%@729,1%@729,0%@729] EMC_FREQ 5%@665 "
    "GR3D_FREQ 0%@[305] NVDEC0 off NVJPG0 off NVJPG1 off VIC off OFA off APE 200 cpu@45.812C/45.812C "
    "soc2@44.843C/44.843C soc0@46.093C/46.093C gpu@46.843C/46.843C tj@46.843C/46.843C soc1@46.281C/46.281C "
    "VDD_IN 3582mW/3582mW/3582mW VDD_CPU_GPU_CV 523mW/523mW/523mW VDD_SOC 1127mW/1127mW/1127mW"
)
# github.com/rbonghi/jetson_stats, issue 381: jetson_clocks --show of an AGX Orin whose clocks are free
CLOCKS = (
    "SOC family:tegra234  Machine:NVIDIA Orin Jetson-Small Developer Kit\nOnline CPUs: 0-11\n"
    "cpu0: Online=1 Governor=schedutil MinFreq=115200 MaxFreq=2201600 CurrentFreq=2112000 IdleStates: WFI=1 c7=1 \n"
    "GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000\n"
)


def load_tegra() -> ModuleType:
    path = Path(rdd_edge.targets.__path__[0]) / "jetson" / "harness" / "tegra.py"
    spec = importlib.util.spec_from_file_location("tegra", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tegra"] = module
    spec.loader.exec_module(module)
    return module


tegra = load_tegra()


@pytest.mark.parametrize(
    ("line", "power", "temperature", "clock", "gpu_clock", "gpu_load"),
    [
        (AGX_ORIN, 2.412 + 1.607 + 4.707, 52.562, 2201, 0, 0.0),
        (THOR_38, 0.0 + 4.923 + 4.327, 36.062, 2601, 0, None),
        (THOR_39, 4.925 + 8.710 + 6.767, 35.906, 2430, 314, None),
        (THOR_VIN, 124.486, 66.625, None, 1574, 0.87),
        (ORIN_NANO, 5.704, 48.843, 729, 305, 0.0),
        (ORIN_NANO_7, 3.582, 46.843, 729, 305, 0.0),
        ("GR3D_FREQ 99% cpu@-256C tj@41C", None, 41.0, None, None, 0.99),
        ("GR3D_FREQ 45%@318", None, None, None, 318, 0.45),
        ("Unknown command", None, None, None, None, None),
        ("CPU [off,off] GR3D_FREQ @[]", None, None, None, None, None),
    ],
)
def test_a_line_of_a_board(
    line: str, power: float | None, temperature: float | None, clock: float | None, gpu_clock: float | None,
    gpu_load: float | None,
) -> None:  # fmt: skip
    sample = tegra.parse(line)
    assert sample.power_w == (None if power is None else pytest.approx(power))
    assert (sample.temperature_c, sample.clock_mhz) == (temperature, clock)
    assert (sample.gpu_clock_mhz, sample.gpu_load) == (gpu_clock, gpu_load)


def test_modes() -> None:
    assert tegra.power_mode("NV Power Mode: MAXN_SUPER\n2\n") == "MAXN_SUPER"
    assert tegra.power_mode("NV Fan Mode:quiet\nNV Power Mode: 15W\n0\n") == "15W"
    assert tegra.power_mode("nonsense") is None
    assert tegra.clocks_locked(CLOCKS) is False
    assert tegra.clocks_locked(CLOCKS.replace("MinFreq=306000000", "MinFreq=1300500000")) is True
    assert tegra.clocks_locked("") is None


def test_version_of_linux_for_tegra(tmp_path: Path) -> None:
    release = tmp_path / "nv_tegra_release"
    assert tegra.versions(release) == {}
    release.write_text(  # Jetson AGX Thor, JetPack 7.0
        "# R38 (release), REVISION: 2.2, GCID: 42205042, BOARD: generic, EABI: aarch64, "
        "DATE: Thu Sep 25 22:47:11 UTC 2025\n# KERNEL_VARIANT: oot\n"
    )
    assert tegra.versions(release) == {"l4t": "38.2.2"}
    release.write_text("nonsense")
    assert tegra.versions(release) == {}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_during_is_what_was_seen_since_the_runs_began(programs: Path, tmp_path: Path) -> None:
    busy = ORIN_NANO.replace("0%@[305]", "90%@[600]").replace("VDD_IN 5704", "VDD_IN 10000").replace("tj@48", "tj@70")
    program(
        programs,
        "tegrastats",
        f"echo '{ORIN_NANO}'; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; "
        f"while true; do echo '{busy}'; sleep 0.05; done",
    )
    counters = tmp_path / "hwmon" / "hwmon3"
    counters.mkdir(parents=True)
    (counters / "oc1_event_cnt").write_text("4")
    watch = tegra.Tegra(tmp_path / "hwmon")
    try:
        before = watch.condition("before", time.monotonic())
        (tmp_path / "go").touch()
        time.sleep(0.2)
        began = time.monotonic()
        time.sleep(0.4)
        (counters / "oc1_event_cnt").write_text("5")
        during = watch.condition("during", began)
    finally:
        watch.close()
    assert (before["power_w"], before["gpu_clock_mhz"], before["gpu_load"]) == (5.704, 305.0, 0.0)
    assert during["power_w"] == pytest.approx(10.0)
    assert (during["temperature_c"], during["gpu_load"], during["throttled"]) == (70.843, pytest.approx(0.9), True)
    for state in (before, during):
        Condition.model_validate(state)


def test_modes_of_a_board(programs: Path) -> None:
    program(programs, "nvpmodel", "printf 'NV Power Mode: MAXN\\n0\\n'")
    program(programs, "jetson_clocks", "echo Please run it as root >&2; exit 1")
    watch = tegra.Tegra()
    found, missing = watch.modes()
    watch.close()
    assert found == {"power_mode": "MAXN", "clocks_locked": None}
    assert missing == {"clocks_locked": "jetson_clocks --show failed (it may need root): Please run it as root"}


def test_what_is_absent_is_null_with_the_reason() -> None:
    watch = tegra.Tegra()
    state, (found, missing) = watch.condition("before", time.monotonic()), watch.modes()
    watch.close()
    assert state["gpu_clock_mhz"] is state["gpu_load"] is None
    assert found == {"power_mode": None, "clocks_locked": None}
    assert missing["power_mode"] == "nvpmodel is not installed"
    assert missing["clocks_locked"] == "jetson_clocks is not installed"
