"""What a machine tells of its state, from files as its kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdd_edge.benchmarking.record import Condition
from rdd_edge.portable.sensors import Sensors, _battery, _throttled


def devices(folder: Path, told: list[tuple[str, str]]) -> Path:
    for i, (kind, state) in enumerate(told):
        device = folder / f"cooling_device{i}"
        device.mkdir()
        (device / "type").write_text(kind + "\n")
        (device / "cur_state").write_text(state + "\n")
    return folder


@pytest.mark.parametrize(
    ("told", "throttled"),
    [
        ([], None),
        ([("pwm-fan", "3")], None),  # a fan that turns slows nothing
        ([("pwm-fan", "3"), ("devfreq-17000000.gpu", "0")], False),
        ([("pwm-fan", "0"), ("devfreq-17000000.gpu", "2"), ("cpufreq-cpu0", "0")], True),
        ([("intel_powerclamp", "-1")], None),  # not in use
        ([("Processor", "gone")], None),
    ],
)
def test_throttling_is_what_slows_the_machine(
    tmp_path: Path, told: list[tuple[str, str]], throttled: bool | None
) -> None:
    assert _throttled(devices(tmp_path, told), tmp_path) is throttled


@pytest.mark.parametrize(
    ("flags", "throttled"),
    [("0", False), ("50000", False), ("50004", True), ("1", True), ("0x50004", None), ("", None)],
)
def test_a_raspberry_pis_firmware_tells_of_the_present(tmp_path: Path, flags: str, throttled: bool | None) -> None:
    (tmp_path / "soc:firmware").mkdir()
    (tmp_path / "soc:firmware" / "get_throttled").write_text(flags + "\n")
    assert _throttled(tmp_path, tmp_path) is throttled


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (None, None)),
        ({"type": "Mains"}, (None, None)),
        ({"type": "Battery", "capacity": "80", "status": "Discharging"}, (0.8, False)),
        ({"type": "Battery", "capacity": "100", "status": "Full"}, (1.0, True)),
        ({"type": "Battery", "capacity": "?", "status": "Unknown"}, (None, None)),
    ],
)
def test_a_battery_has_a_level_and_may_be_charging(
    tmp_path: Path, files: dict[str, str], expected: tuple[float | None, bool | None]
) -> None:
    supply = tmp_path / "BAT0"
    supply.mkdir()
    for name, text in files.items():
        (supply / name).write_text(text + "\n")
    assert tuple(_battery(tmp_path).values()) == expected


def test_any_machine_tells_a_condition_and_why_it_has_no_modes() -> None:
    sensors = Sensors()
    assert Condition.model_validate(sensors.condition("before", 0.0)).when == "before"
    found, missing = sensors.modes()
    assert set(found) == set(missing) == {"power_mode", "clocks_locked"}
    sensors.close()
