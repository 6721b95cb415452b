"""Xcode's devicectl, by which iPhones and iPads are reached: its commands, and which devices there are.

Only what `--json-output FILE` writes is parsed, and the console of a launched app: Apple keeps the form of nothing else
("Interacting with devices using the command line"). The JSON is as flutter_tools reads it (core_devices.dart, and the
outputs in its test), its errors as Qt Creator does (tst_devicectlutils.cpp); the options are those of devicectl's help.

A device is not trusted: its output is bounded, and nothing that it says reaches the terminal with control characters.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import (
    CorruptError,
    DependencyError,
    DeviceError,
    MissingError,
    RddEdgeError,
    UsageError,
    printable,
)
from ..reading.documents import parse_json, read_content
from .processes import last_line, output_of

IOS = "ios://"
UDID = r"[0-9A-Fa-f][0-9A-Fa-f-]{23,39}"  # or the identifier that devicectl gives a device
MISSING = "ios:// devices need a Mac with Xcode 16 or newer, and its devicectl: `xcrun devicectl --version` must work"
LIST_SECONDS = 10  # after which devicectl gives up looking for devices
ANSWER_SECONDS = 120.0  # a command takes at most so long; the first one after a cable was plugged in is slow
POLL_SECONDS = 1.0
MOST_JSON_BYTES = 1 << 24
MOST_OUTPUT_BYTES = 1 << 20
NO_DEVICE = "devicectl lists no iPhone or iPad: connect one with a cable, unlock it, and trust this Mac"
PAIR = "not paired: unlock it, connect it with a cable, and trust this Mac"
DEVELOPER = "developer mode is off: turn it on in its Settings → Privacy & Security → Developer Mode"
AWAY = "not available: unlock it, and connect it with a cable or to this Mac's network"


@dataclass(frozen=True)
class IosDevice:
    """An iPhone or iPad of `devicectl list devices`."""

    udid: str
    identifier: str  # that CoreDevice gave it
    name: str
    model: str
    system: str
    advice: str | None  # what to do before it can be used; None if it can be

    def __str__(self) -> str:
        return f"{IOS}{self.udid} ({self.name})"


def udid_of(url: str) -> str | None:
    """The UDID in ios://[udid]; None where there is none. Raises UsageError for any other form."""
    if match := re.fullmatch(rf"ios://({UDID})?/?", url, re.ASCII):
        return match[1]
    raise UsageError(f"{url!r} is not a device: expected ios://[udid], with a UDID as in `rdd-edge devices`")


def list_ios_devices() -> list[IosDevice]:
    """The iPhones and iPads that this Mac knows. Raises DependencyError where devicectl is not installed."""
    return _devices(run_devicectl("list", "devices", "--timeout", str(LIST_SECONDS)))


def _devices(result: dict[str, Any]) -> list[IosDevice]:
    found = result.get("devices")
    if not isinstance(found, list):
        raise CorruptError("devicectl's list of devices has another form than Xcode 16's")
    devices = (
        _device(entry) for entry in found if text_in(entry, "hardwareProperties", "platform") in ("iOS", "iPadOS")
    )
    return [device for device in devices if device is not None]


def _device(entry: Any) -> IosDevice | None:
    """Simulators are listed from Xcode 27 on, and have another `reality`."""
    hardware, properties, connection = "hardwareProperties", "deviceProperties", "connectionProperties"
    udid, identifier = text_in(entry, hardware, "udid"), text_in(entry, "identifier")
    if not re.fullmatch(UDID, udid, re.ASCII) or text_in(entry, hardware, "reality") not in ("", "physical"):
        return None
    advice = None
    if text_in(entry, connection, "pairingState") != "paired":
        advice = PAIR
    elif text_in(entry, connection, "tunnelState") == "unavailable":  # "disconnected" is a tunnel that a command opens
        advice = AWAY
    elif text_in(entry, properties, "developerModeStatus") == "disabled":
        advice = DEVELOPER
    model = text_in(entry, hardware, "marketingName") or text_in(entry, hardware, "productType")
    system = f"iOS {text_in(entry, properties, 'osVersionNumber')}".strip()
    return IosDevice(udid, identifier, text_in(entry, properties, "name") or "iPhone", model, system, advice)


def text_in(value: Any, *keys: str) -> str:
    """A string within nested objects, fit for a terminal; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return printable(value, 400).strip() if isinstance(value, str) else ""


def run_devicectl(
    *arguments: str, wait: float = ANSWER_SECONDS, watch: Callable[[], None] | None = None
) -> dict[str, Any]:
    """The result of a command. Raises DeviceError with devicectl's reason where it fails.

    watch: called now and then; what it raises ends the command.
    """
    name = " ".join(word for word in arguments[:3] if word[:1].isalpha())
    with TemporaryDirectory(prefix="rdd-edge-") as folder:
        answer = Path(folder) / "answer.json"
        command = ["xcrun", "devicectl", *arguments, "--quiet", "--json-output", str(answer)]
        size, end = 0, time.monotonic() + wait
        with closing(output_of(command, failure_of(answer), MISSING, POLL_SECONDS)) as parts:
            for part in parts:
                size += len(part)
                if size > MOST_OUTPUT_BYTES:
                    raise CorruptError(f"devicectl {name} printed more than {MOST_OUTPUT_BYTES} bytes")
                if time.monotonic() > end:
                    raise DeviceError(f"devicectl {name} did not end within {wait:g} s: plug the device in again")
                if watch:
                    watch()
        found = _read_answer(answer)
        if text_in(found, "info", "outcome") != "success":
            raise DeviceError(_reason(found) or f"devicectl {name} had no success, and gives no reason")
        result = found.get("result")
        return result if isinstance(result, dict) else {}


def _read_answer(path: Path) -> dict[str, Any]:
    """What --json-output wrote. Raises CorruptError for anything but an object."""
    try:
        value = parse_json(read_content(path, MOST_JSON_BYTES), "devicectl's answer")
    except MissingError:
        raise CorruptError("devicectl wrote no answer") from None
    if not isinstance(value, dict):
        raise CorruptError("devicectl's answer is not a JSON object")
    return value


def failure_of(answer: Path) -> Callable[[int, bytes, bytes], RddEdgeError]:
    """The error for a command that failed: what its JSON says, or else its last line that says ERROR."""

    def failed(code: int, stdout: bytes, stderr: bytes) -> RddEdgeError:
        lines = (stdout + b"\n" + stderr).splitlines()
        errors = [line for line in lines if re.search(rb"\b(ERROR|[Ee]rror):", line)]
        told = reason_in(answer) or last_line(b"\n".join(errors or lines), 300)
        if "unable to find utility" in told or "Unknown option" in told:  # the command line tools alone, or Xcode 15
            return DependencyError(f"{MISSING} ({told})")
        return DeviceError(told or f"devicectl ended with exit code {code}")

    return failed


def reason_in(answer: Path) -> str:
    """`_reason` of an answer that may be missing or damaged."""
    try:
        return _reason(_read_answer(answer))
    except RddEdgeError:
        return ""


def _reason(answer: dict[str, Any]) -> str:
    """An answer's error and those beneath it in one line, each with its domain and code; empty where it has none."""
    texts: list[str] = []
    error = answer.get("error")
    for _ in range(8):  # enough; a file may nest them without end
        if not isinstance(error, dict):
            break
        info = error.get("userInfo")
        keys = ("NSLocalizedDescription", "NSLocalizedFailureReason", "NSLocalizedRecoverySuggestion")
        told = [text.rstrip(".") for key in keys if (text := text_in(info, key, "string"))]
        texts += [*told[:-1], f"{told[-1] if told else 'error'} ({text_in(error, 'domain')} {error.get('code')})"]
        below = info.get("NSUnderlyingError") if isinstance(info, dict) else None
        error = below.get("error") if isinstance(below, dict) else None
    return printable("; ".join(texts), 800)
