"""iPhones and iPads through Xcode's devicectl: which there are, an app on one of them, and files to and from it.

Only what `--json-output FILE` writes is parsed, and the console of a launched app: Apple keeps the form of nothing else
("Interacting with devices using the command line"). The JSON is as flutter_tools reads it (core_devices.dart, and the
outputs in its test), its errors as Qt Creator does (tst_devicectlutils.cpp); the options are those of devicectl's help.

A device is not trusted: its output is bounded, and nothing that it says reaches the terminal with control characters.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..console import reporter
from ..errors import (
    CorruptError,
    DependencyError,
    DeviceError,
    MissingError,
    RddEdgeError,
    StorageError,
    UsageError,
    printable,
)
from ..reading.documents import parse_json, read_content
from .processes import last_line, output_of

IOS = "ios://"
UDID = r"[0-9A-Fa-f][0-9A-Fa-f-]{23,39}"  # or the identifier that devicectl gives a device
MISSING = "ios:// devices need a Mac with Xcode 16 or newer, and its devicectl: `xcrun devicectl --version` must work"
APP = "org.rddedge.harness"
LIST_SECONDS = 10  # after which devicectl gives up looking for devices
ANSWER_SECONDS = 120.0  # a command takes at most so long; the first one after a cable was plugged in is slow
COPY_SECONDS = 1800.0
END_SECONDS = 5.0  # an interrupted app takes at most so long to end
TERMINATE_SECONDS = 15.0  # for each of the two commands that then make sure of it
POLL_SECONDS = 1.0
MOST_JSON_BYTES = 1 << 24
MOST_OUTPUT_BYTES = 1 << 20
NO_DEVICE = "devicectl lists no iPhone or iPad: connect one with a cable, unlock it, and trust this Mac"
PAIR = "not paired: unlock it, connect it with a cable, and trust this Mac"
DEVELOPER = "developer mode is off: turn it on in its Settings → Privacy & Security → Developer Mode"
AWAY = "not available: unlock it, and connect it with a cable or to this Mac's network"
ADVICE = (  # words in devicectl's errors, and what to do
    (
        r"device is locked|DeviceLocked|could not be,? unlocked|\bLocked\b",
        "it is locked: unlock it, and keep it unlocked",
    ),
    (
        r"explicitly trusted|invalid code signature",
        "it does not trust the app: allow its developer in its Settings → General → VPN & Device Management",
    ),
    (r"[Dd]eveloper [Mm]ode", DEVELOPER),
)
FULL = (
    r"[Nn]o space left|out of space|not enough (?:free |disk )*space|NSPOSIXErrorDomain 28\b|NSCocoaErrorDomain 640\b"
)


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
    return _devices(_devicectl("list", "devices", "--timeout", str(LIST_SECONDS)))


def _devices(result: dict[str, Any]) -> list[IosDevice]:
    found = result.get("devices")
    if not isinstance(found, list):
        raise CorruptError("devicectl's list of devices has another form than Xcode 16's")
    devices = (_device(entry) for entry in found if _text(entry, "hardwareProperties", "platform") in ("iOS", "iPadOS"))
    return [device for device in devices if device is not None]


def _device(entry: Any) -> IosDevice | None:
    """Simulators are listed from Xcode 27 on, and have another `reality`."""
    hardware, properties, connection = "hardwareProperties", "deviceProperties", "connectionProperties"
    udid, identifier = _text(entry, hardware, "udid"), _text(entry, "identifier")
    if not re.fullmatch(UDID, udid, re.ASCII) or _text(entry, hardware, "reality") not in ("", "physical"):
        return None
    advice = None
    if _text(entry, connection, "pairingState") != "paired":
        advice = PAIR
    elif _text(entry, connection, "tunnelState") == "unavailable":  # "disconnected" is a tunnel that a command opens
        advice = AWAY
    elif _text(entry, properties, "developerModeStatus") == "disabled":
        advice = DEVELOPER
    model = _text(entry, hardware, "marketingName") or _text(entry, hardware, "productType")
    system = f"iOS {_text(entry, properties, 'osVersionNumber')}".strip()
    return IosDevice(udid, identifier, _text(entry, properties, "name") or "iPhone", model, system, advice)


def _text(value: Any, *keys: str) -> str:
    """A string within nested objects, fit for a terminal; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return printable(value, 400).strip() if isinstance(value, str) else ""


def _devicectl(
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
        with closing(output_of(command, _failure_of(answer), MISSING, POLL_SECONDS)) as parts:
            for part in parts:
                size += len(part)
                if size > MOST_OUTPUT_BYTES:
                    raise CorruptError(f"devicectl {name} printed more than {MOST_OUTPUT_BYTES} bytes")
                if time.monotonic() > end:
                    raise DeviceError(f"devicectl {name} did not end within {wait:g} s: plug the device in again")
                if watch:
                    watch()
        found = _read_answer(answer)
        if _text(found, "info", "outcome") != "success":
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


def _failure_of(answer: Path) -> Callable[[int, bytes, bytes], RddEdgeError]:
    """The error for a command that failed: what its JSON says, or else its last line that says ERROR."""

    def failed(code: int, stdout: bytes, stderr: bytes) -> RddEdgeError:
        lines = (stdout + b"\n" + stderr).splitlines()
        errors = [line for line in lines if re.search(rb"\b(ERROR|[Ee]rror):", line)]
        told = _reason_in(answer) or last_line(b"\n".join(errors or lines), 300)
        if "unable to find utility" in told or "Unknown option" in told:  # the command line tools alone, or Xcode 15
            return DependencyError(f"{MISSING} ({told})")
        return DeviceError(told or f"devicectl ended with exit code {code}")

    return failed


def _reason_in(answer: Path) -> str:
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
        told = [text.rstrip(".") for key in keys if (text := _text(info, key, "string"))]
        texts += [*told[:-1], f"{told[-1] if told else 'error'} ({_text(error, 'domain')} {error.get('code')})"]
        below = info.get("NSUnderlyingError") if isinstance(info, dict) else None
        error = below.get("error") if isinstance(below, dict) else None
    return printable("; ".join(texts), 800)


class Iphone:
    """One device that is ready."""

    def __init__(self, udid: str | None) -> None:
        """udid: None for the only one that can be used.

        Raises DeviceError where there is none that can, UsageError where there are several.
        """
        devices = list_ios_devices()
        if not devices:
            raise DeviceError(NO_DEVICE)
        names = ", ".join(map(str, devices))
        found = [device for device in devices if udid is None or udid.lower() in _names(device)]
        if not found:
            raise DeviceError(f"devicectl lists no device {udid}: there is {names}")
        usable = [device for device in found if device.advice is None]
        if not usable:
            raise DeviceError("; ".join(f"{device.name} ({device.udid}) is {_state(device)}" for device in found))
        if len(usable) > 1:
            raise UsageError(f"devicectl lists several devices: choose one with --device, of {names}")
        self.udid, self.name = usable[0].udid, usable[0].name
        self._app_url = ""  # where the app is installed

    def __str__(self) -> str:
        return f"{self.name} ({self.udid})"

    def installed_version(self) -> str | None:
        """Version of the harness app there; None where it is not installed."""
        apps = self._run("device", "info", "apps", "--device", self.udid, "--bundle-id", APP).get("apps")
        if not isinstance(apps, list):
            raise CorruptError("devicectl's list of apps has another form than Xcode 16's")
        app = next((app for app in apps if _text(app, "bundleIdentifier") == APP), None)
        self._app_url = _text(app, "url")
        return None if app is None else _text(app, "version")

    def send(self, source: Path, remote: str) -> None:
        """Copy a file, or what is in a folder, to `remote` in the app's container, a path that is not there yet.

        Raises StorageError where the device is full.
        """
        # Never with --remove-existing-content: its help speaks of the destination, but users report that it removed all
        # that the app had on the device, and that a folder which it made belonged to root.
        copy = ["device", "copy", "to", *self._container(), "--source", str(source), "--destination", remote]
        self._run(*copy, wait=COPY_SECONDS)

    def fetch(self, remote: str, folder: Path, most: int) -> None:
        """Copy what is in a folder of the app's container into `folder`.

        Raises CorruptError for more than `most` bytes.
        """

        def watch() -> None:
            if _bytes_below(folder) > most:
                raise CorruptError(f"{self} sent back more than the {most} bytes that were expected")

        copy = ["device", "copy", "from", *self._container(), "--source", remote, "--destination", str(folder)]
        try:
            self._run(*copy, wait=COPY_SECONDS, watch=watch)
        except StorageError:
            raise StorageError(f"the disk is full: the run of {self} was not written") from None
        watch()

    def follow_app(self, *arguments: str, wait: float) -> Generator[bytes, None, None]:
        """Start the app in place of one that runs, and yield what it prints; b"" after each `wait` seconds without any.

        The output ends with the app; closing the generator ends the app. Raises DeviceError where it cannot be started.
        """
        with TemporaryDirectory(prefix="rdd-edge-") as folder:
            answer = Path(folder) / "answer.json"
            options = ["--device", self.udid, "--console", "--terminate-existing", "--json-output", str(answer)]
            # -- stands before the app's name: a devicectl of 2023 passed one after it on to the app (FB13259837).
            command = ["xcrun", "devicectl", "device", "process", "launch", *options, "--", APP, *arguments]
            failed = _failure_of(answer)
            try:
                # On a pipe, devicectl keeps output back until it has 4 KiB; flutter_tools gives it a terminal as well.
                yield from output_of(command, failed, MISSING, wait, terminal=True, end_seconds=END_SECONDS)
            except DeviceError:
                if reason := _reason_in(answer):
                    raise self._failed(reason) from None
            except BaseException:  # closed, or Ctrl-C
                with suppress(
                    RddEdgeError
                ):  # devicectl passed the interrupt on to the app, and most likely it has ended
                    self._end_app()
                raise

    def check(self) -> None:
        """Raise DeviceError where the device can no longer be used."""
        if (error := self._lost()) is not None:
            raise error

    def _container(self) -> list[str]:
        return ["--device", self.udid, "--domain-type", "appDataContainer", "--domain-identifier", APP]

    def _run(
        self, *arguments: str, wait: float = ANSWER_SECONDS, watch: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        try:
            return _devicectl(*arguments, wait=wait, watch=watch)
        except DeviceError as error:
            raise self._failed(str(error)) from None

    def _end_app(self) -> None:
        """End the app by the id of its process."""
        found = _devicectl("device", "info", "processes", "--device", self.udid, wait=TERMINATE_SECONDS)
        running = found.get("runningProcesses")
        for process in running if isinstance(running, list) else []:
            pid = process.get("processIdentifier") if isinstance(process, dict) else None
            if isinstance(pid, int) and self._app_url and _text(process, "executable").startswith(self._app_url):
                terminate = ["device", "process", "terminate", "--device", self.udid, "--pid", str(pid), "--kill"]
                _devicectl(*terminate, wait=TERMINATE_SECONDS)

    def _failed(self, reason: str) -> RddEdgeError:
        """The error for a command that failed: what to do about it, where that is known."""
        if re.search(FULL, reason):
            return StorageError(f"{self} has no space left: delete files or apps on it")
        advice = next((advice for pattern, advice in ADVICE if re.search(pattern, reason)), None)
        return DeviceError(f"{self}: {advice}") if advice else self._lost() or DeviceError(f"{self}: {reason}")

    def _lost(self) -> RddEdgeError | None:
        """What became of the device, where it cannot be used any more."""
        device = next((device for device in list_ios_devices() if device.udid == self.udid), None)
        if device is None or device.advice == AWAY:
            when = f" in stage {reporter().stage}" if reporter().stage else ""
            return DeviceError(
                f"{self} was disconnected{when}: check the cable, and whether the device shut down, as from heat; then "
                "run the command again"
            )
        return DeviceError(f"{self} is {_state(device)}") if device.advice else None


def _names(device: IosDevice) -> tuple[str, str]:
    return device.udid.lower(), device.identifier.lower()


def _state(device: IosDevice) -> str:
    """What to do with a device that cannot be used, as the end of a sentence that began with "is"."""
    return f"not ready: {device.advice}" if device.advice == DEVELOPER else str(device.advice)


def _bytes_below(folder: Path) -> int:
    """Size of the files in a folder that another program is still writing to."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
