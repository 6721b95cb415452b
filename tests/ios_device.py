"""A simulated iPhone on a simulated Mac: an `xcrun` that is a Python script, and folders in place of devices.

The app is tests/fakes/ios/app.py, or the harness in Swift where RDD_EDGE_IOS_HARNESS holds its command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

FAKES = Path(__file__).parent / "fakes" / "ios"
SWIFT = os.environ.get("RDD_EDGE_IOS_HARNESS")
UDID, OTHER = "00008130-001A2B3C4D5E001C", "00008110-000A08440198801E"


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return pid > 0 and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Mac:
    """Xcode's programs in a folder `bin`, for the front of the PATH, and what it knows in the folders beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        for name in ("bin", "phones", "answers"):
            (folder / name).mkdir(parents=True)
        xcrun = self.bin / "xcrun"
        xcrun.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(FAKES / "xcrun.py"), str(folder)])} "$@"\n')
        xcrun.chmod(0o755)
        self.set_app(SWIFT or shlex.join([sys.executable, str(FAKES / "app.py")]))

    def set_app(self, command: str) -> None:
        """Command line that `process launch` runs, followed by the launch arguments."""
        (self.folder / "app").write_text(command)

    def answer(self, subcommand: str, content: bytes | None) -> None:
        """What a subcommand writes in place of its JSON, e.g. of "device.info.apps"; None: its own again."""
        path = self.folder / "answers" / subcommand
        path.unlink(missing_ok=True) if content is None else path.write_bytes(content)

    @property
    def commands(self) -> list[list[str]]:
        """The command lines that have been called, after `xcrun`."""
        path = self.folder / "commands.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class SimulatedIphone:
    """A phone that is ready, with the app in this version."""

    def __init__(self, mac: Mac, udid: str = UDID, name: str = "Jo’s iPhone", version: str = "1") -> None:
        self.folder, self.udid = mac.folder / "phones" / udid, udid
        self.documents = self.folder / "container" / "Documents"
        self.documents.mkdir(parents=True)
        self.state: dict[str, Any] = {
            "name": name, "identifier": f"123456BB-AEDE-7A22-B890-{udid[-12:]}", "version": version, "platform": "iOS",
            "app": "org.rddedge.harness", "more_apps": [],
            "reality": "physical", "pairing": "paired", "tunnel": "disconnected", "developer_mode": "enabled",
            "launch_error": "", "free_bytes": 1 << 40, "nested": False, "huge": False, "deaf": False, "environment": {},
        }  # fmt: skip
        self.set()

    def set(self, **state: Any) -> None:
        assert state.keys() <= self.state.keys()
        self.state |= state
        new = self.folder / "state.new"
        new.write_text(json.dumps(self.state))
        new.replace(self.folder / "state.json")  # whole at any moment, for a devicectl that runs

    def unplug(self) -> None:
        self.set(tunnel="unavailable")

    def app_pid(self) -> int | None:
        """Process of the running app."""
        path = self.folder / "process"
        pid = int(path.read_text()) if path.exists() else 0
        return pid if is_running(pid) else None

    def kill_app(self) -> None:
        """End the app as the system does."""
        pid = self.app_pid()
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """What lies in the driver's folder, without the random parts of the names."""
        folder = self.documents / "driver"
        return sorted(name.partition("-")[0] for name in os.listdir(folder)) if folder.exists() else []

    def close(self) -> None:
        if pid := self.app_pid():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
