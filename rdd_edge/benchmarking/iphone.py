"""An iPhone or iPad: its harness app, and files to and from that app's container.

What the device sends is bounded, and nothing that it says reaches the terminal with control characters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..console import reporter
from ..errors import CorruptError, DeviceError, RddEdgeError, StorageError, UsageError
from .devicectl import (
    ANSWER_SECONDS,
    AWAY,
    DEVELOPER,
    MISSING,
    NO_DEVICE,
    IosDevice,
    failure_of,
    list_ios_devices,
    reason_in,
    run_devicectl,
    text_in,
)
from .processes import output_of

APP = r"(?:[\w-]+\.)+rddedge\.harness"  # Apple gives an identifier to one team: others have other words before these
COPY_SECONDS = 1800.0
END_SECONDS = 5.0  # an interrupted app takes at most so long to end
TERMINATE_SECONDS = 15.0  # for each of the two commands that then make sure of it
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
        self._app = self._app_url = ""  # identifier, and where it is installed

    def __str__(self) -> str:
        return f"{self.name} ({self.udid})"

    def installed_version(self) -> str | None:
        """Version of the harness app there; None where it is not installed.

        Raises UsageError where there are several, of different teams.
        """
        apps = self._run("device", "info", "apps", "--device", self.udid).get("apps")
        if not isinstance(apps, list):
            raise CorruptError("devicectl's list of apps has another form than Xcode 16's")
        found = {text_in(app, "bundleIdentifier"): app for app in apps}
        names = [name for name in found if re.fullmatch(APP, name, re.ASCII)]
        if not names:
            return None
        if len(names) > 1:
            raise UsageError(f"{self} has several harness apps: delete all but one of {', '.join(names)}")
        (self._app,) = names
        self._app_url = text_in(found[self._app], "url")
        return text_in(found[self._app], "version")

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
            command = ["xcrun", "devicectl", "device", "process", "launch", *options, "--", self._app, *arguments]
            failed = failure_of(answer)
            try:
                # On a pipe, devicectl keeps output back until it has 4 KiB; flutter_tools gives it a terminal as well.
                yield from output_of(command, failed, MISSING, wait, terminal=True, end_seconds=END_SECONDS)
            except DeviceError:
                if reason := reason_in(answer):
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
        return ["--device", self.udid, "--domain-type", "appDataContainer", "--domain-identifier", self._app]

    def _run(
        self, *arguments: str, wait: float = ANSWER_SECONDS, watch: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        try:
            return run_devicectl(*arguments, wait=wait, watch=watch)
        except DeviceError as error:
            raise self._failed(str(error)) from None

    def _end_app(self) -> None:
        """End the app by the id of its process."""
        found = run_devicectl("device", "info", "processes", "--device", self.udid, wait=TERMINATE_SECONDS)
        running = found.get("runningProcesses")
        for process in running if isinstance(running, list) else []:
            pid = process.get("processIdentifier") if isinstance(process, dict) else None
            if isinstance(pid, int) and self._app_url and text_in(process, "executable").startswith(self._app_url):
                terminate = ["device", "process", "terminate", "--device", self.udid, "--pid", str(pid), "--kill"]
                run_devicectl(*terminate, wait=TERMINATE_SECONDS)

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
