"""Android devices through the adb program: which there are, commands on one of them, and files to it.

A device is not trusted: its output is bounded, and nothing that it says reaches the terminal with control characters.
Nothing from outside is put into a command line of its shell without quotes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..console import reporter
from ..errors import DeviceError, RddEdgeError, StorageError, UsageError, printable
from .processes import bounded, last_line, output_of

ADB = "adb://"
SERIAL = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
MISSING = "adb:// devices need the adb program: apt-get install adb, or Android's platform tools, on the PATH"
ANSWER_SECONDS = 60.0  # a command on the device takes at most so long between two parts of its output
COPY_SECONDS = 1800.0  # a large bundle over a slow cable; adb shows no progress on a pipe
MOST_OUTPUT_BYTES = 1 << 20
NO_DEVICE = "adb lists no device: connect one with a data cable, and turn on USB debugging in its developer options"
STATES = {
    "unauthorized": "unlock it and allow USB debugging for this computer's key",
    "authorizing": "wait a moment, and allow USB debugging on its screen",
    "offline": "unplug it and plug it in again, or run `adb reconnect`",
    "connecting": "wait a moment",
    "no permissions": "this user may not open it: install udev's rules with apt-get install "
    "android-sdk-platform-tools-common, and plug it in again",
}


@dataclass(frozen=True)
class AdbDevice:
    """A line of `adb devices`."""

    serial: str
    state: str  # "device" where it can be used
    model: str

    @property
    def advice(self) -> str | None:
        """What to do before it can be used; None if it can be."""
        return None if self.state == "device" else STATES.get(self.state, "start Android on it")


def serial_of(url: str) -> str | None:
    """The serial number in adb://[serial]; None where there is none. Raises UsageError for any other form."""
    if match := re.fullmatch(rf"adb://({SERIAL})?/?", url, re.ASCII):
        return match[1]
    raise UsageError(f"{url!r} is not a device: expected adb://[serial], with a serial number as in `adb devices`")


def list_adb_devices() -> list[AdbDevice]:
    """The devices that adb knows. Raises DependencyError where adb is not installed."""
    devices = []
    for line in _adb("devices", "-l").decode(errors="replace").splitlines():
        match = re.match(rf"({SERIAL}|\?+)\s+(no permissions|[a-z]+)\b(.*)", line, re.ASCII)
        if match and not line.startswith("List of devices"):
            model = re.search(r"\bmodel:(\S+)", match[3])
            devices.append(AdbDevice(match[1], match[2], printable(model[1], 60).replace("_", " ") if model else ""))
    return devices


def _adb(*arguments: str, most: int = MOST_OUTPUT_BYTES, wait: float = ANSWER_SECONDS) -> bytes:
    """The output of the adb program. Raises DeviceError with its error where it fails."""
    name = arguments[2] if arguments[0] == "-s" else arguments[0]
    stalled = DeviceError(f"adb {name} did not answer for {wait:g} s: run `adb kill-server`, and try again")
    return bounded(output_of(["adb", *arguments], _failed, MISSING, wait, stalled), most, "the device")


def _failed(code: int, stdout: bytes, stderr: bytes) -> RddEdgeError:
    lines = (stdout + b"\n" + stderr).splitlines()
    told = [line for line in lines if b"rror" in line or b"Failure" in line]  # lines about the progress may follow it
    return DeviceError(last_line(b"\n".join(told or lines), 500) or f"adb ended with exit code {code}")


class Android:
    """One device that is ready."""

    def __init__(self, serial: str | None) -> None:
        """serial: None for the only device. Raises UsageError or DeviceError where there is none, or more than one."""
        devices = list_adb_devices()
        found = [device for device in devices if serial in (None, device.serial)]
        names = ", ".join(f"adb://{device.serial} ({device.model or device.state})" for device in devices)
        if not devices:
            raise DeviceError(NO_DEVICE)
        if not found:
            raise DeviceError(f"adb lists no device {serial}: there is {names}")
        if len(found) > 1:
            raise UsageError(f"adb lists several devices: choose one with --device, of {names}")
        if found[0].advice:
            raise DeviceError(f"{found[0].serial} is {found[0].state}: {found[0].advice}")
        self.serial = found[0].serial

    def __str__(self) -> str:
        return self.serial

    def shell(self, *command: str, most: int = MOST_OUTPUT_BYTES) -> bytes:
        """The output of a command on the device, stderr included. Raises DeviceError where it fails."""
        # exec: is the one service that every Android has and that leaves bytes as they are; it has no exit code
        try:
            output = _adb("-s", self.serial, "exec-out", f'{shlex.join(command)}; echo " $?"', most=most + 8)
        except DeviceError as error:
            raise self.lost(str(error)) from None
        body, _, code = output.rpartition(b" ")
        if not re.fullmatch(rb"\d{1,3}\n", code):
            raise self.lost("the answer of the device was cut off")
        if int(code):
            raise self._failed(last_line(body, 500) or "no reason given")
        return body

    def push(self, source: Path, remote: str) -> None:
        """Copy a file or a folder. Raises StorageError where the device is full."""
        try:
            _adb("-s", self.serial, "push", str(source), remote, wait=COPY_SECONDS)
        except DeviceError as error:
            raise self._failed(str(error)) from None

    def install(self, apk: Path) -> None:
        """Install an app, or another version of it. Raises DeviceError with the reason of Android's package manager."""
        try:
            output = _adb("-s", self.serial, "install", "-r", str(apk), wait=COPY_SECONDS)
        except DeviceError as error:
            raise self._failed(f"{apk} was not installed: {error}") from None
        if b"Success" not in output.splitlines():
            raise DeviceError(f"{self}: {apk} was not installed: {last_line(output, 500)}")

    def follow(self, *command: str, wait: float) -> Generator[bytes, None, None]:
        """Output of a command that does not end by itself; empty after each `wait` seconds without any."""
        try:
            yield from output_of(["adb", "-s", self.serial, "exec-out", shlex.join(command)], _failed, MISSING, wait)
        except DeviceError as error:
            raise self.lost(str(error)) from None
        raise self.lost("its log ended")

    def lost(self, reason: str) -> RddEdgeError:
        """The error for a command that was cut off: what became of the device, or else `reason`."""
        device = next((device for device in list_adb_devices() if device.serial == self.serial), None)
        if device is None or device.state == "offline":
            when = f" in stage {reporter().stage}" if reporter().stage else ""
            return DeviceError(
                f"{self} was disconnected{when}: check the cable, and whether the device shut down, as from heat; then "
                "run the command again"
            )
        return DeviceError(f"{self} is {device.state}: {device.advice}" if device.advice else f"{self}: {reason}")

    def _failed(self, reason: str) -> RddEdgeError:
        if "No space left" in reason or "INSUFFICIENT_STORAGE" in reason:
            return StorageError(f"{self} has no space left: delete files or apps on it")
        return self.lost(reason)
