"""`xcrun devicectl …` of a Mac whose phones are folders: xcrun.py MAC devicectl SUBCOMMAND …

It knows the subcommands and options that rdd-edge uses, as devicectl's help describes them, and refuses all others. Its
JSON has the form of the samples in flutter_tools' core_devices_test.dart and Qt Creator's tst_devicectlutils.cpp. A
phone is the folder MAC/phones/UDID:

    state.json    what tests set
    container/    of the app; Documents in it
    process       id of the app's process, while it runs

What is known of devicectl from the notes of its users, and imitated here: a folder's contents land in the destination,
beside what is there; --remove-existing-content empties the app's whole container; a -- after the app's name reaches the
app; on a pipe, output comes in blocks of 4 KiB; an interrupt is passed on to the app.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).parents[2]))
from ios_device import is_running

MAC = Path(sys.argv[1])
CORE, POSIX = "com.apple.dt.CoreDeviceError", "NSPOSIXErrorDomain"
FLAGS = ("--verbose", "--quiet", "--console", "--terminate-existing", "--kill", "--include-all-apps")
COMMON = ("--verbose", "--quiet", "--timeout", "--json-output", "--log-output")
COPY = ("--device", "--source", "--destination", "--user", "--domain-type", "--domain-identifier",
        "--remove-existing-content")  # fmt: skip
OPTIONS = {
    "list devices": (),
    "device info apps": ("--device", "--bundle-id", "--include-all-apps"),
    "device info processes": ("--device",),
    "device copy to": COPY,
    "device copy from": COPY,
    "device process launch": ("--device", "--console", "--terminate-existing"),
    "device process terminate": ("--device", "--pid", "--kill"),
}


def usage(text: str) -> NoReturn:
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(64)


def parse(words: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """Subcommand, options and positional arguments."""
    name = next((known for known in OPTIONS if words[: len(known.split())] == known.split()), None)
    if name is None:
        usage(f"Unexpected argument '{words[0] if words else ''}'")
    rest, options = words[len(name.split()) :], {}
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word not in (*COMMON, *OPTIONS[name]):
            usage(f"Unknown option '{word}'")
        if word not in FLAGS and not rest:
            usage(f"Missing value for '{word} <value>'")
        options[word] = "true" if word in FLAGS else rest.pop(0)
    if rest and name != "device process launch":
        usage(f"Unexpected argument '{rest[0]}'")
    if name.startswith("device") and "--device" not in options:
        usage("Missing expected argument '--device <uuid|ecid|serial_number|udid|name|dns_name>'")
    return name, options, rest


class Phone:
    def __init__(self, folder: Path) -> None:
        self.folder, self.container, self.udid = folder, folder / "container", folder.name
        self.url = "file:///private/var/containers/Bundle/Application/12345E6A-7F89-0C12-345E-F6A7E890CFF1/Harness.app/"

    @property
    def app(self) -> str:
        return str(self.state["app"])

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    def listed(self) -> dict[str, Any]:
        state = self.state
        return {
            "capabilities": [{"featureIdentifier": "com.apple.coredevice.feature.connectdevice", "name": "Connect"}],
            "connectionProperties": {
                "authenticationType": "manualPairing",
                "pairingState": state["pairing"],
                "potentialHostnames": [f"{self.udid}.coredevice.local"],
                "transportType": "wired",
                "tunnelState": state["tunnel"],
            },
            "deviceProperties": {
                "bootState": "booted",
                "ddiServicesAvailable": False,
                "developerModeStatus": state["developer_mode"],
                "name": state["name"],
                "osVersionNumber": "18.1",
            },
            "hardwareProperties": {
                "cpuType": {"name": "arm64e", "subType": 2, "type": 16777228},
                "deviceType": "iPhone",
                "marketingName": "iPhone 15 Pro",
                "platform": state["platform"],
                "productType": "iPhone16,1",
                "reality": state["reality"],
                "udid": self.udid,
            },
            "identifier": state["identifier"],
            "visibilityClass": "default",
        }

    def pid(self) -> int | None:
        path = self.folder / "process"
        pid = int(path.read_text()) if path.exists() else 0
        return pid if is_running(pid) else None

    def end_app(self) -> None:
        if pid := self.pid():
            os.killpg(pid, signal.SIGKILL)
            while self.pid():
                time.sleep(0.02)


class Command:
    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.name, self.options, self.rest = parse(words)

    def answer(self, outcome: str, **more: Any) -> None:
        damaged = MAC / "answers" / self.name.replace(" ", ".")
        if "--json-output" not in self.options:
            return
        kind = f"devicectl.{self.name.replace(' ', '.')}"
        info = {"arguments": ["devicectl", *self.words], "commandType": kind, "environment": {"TERM": "xterm-256color"},
                "jsonVersion": 2, "outcome": outcome, "version": "397.21"}  # fmt: skip
        content = json.dumps({"info": info, **more}, indent=2).encode()
        Path(self.options["--json-output"]).write_bytes(damaged.read_bytes() if damaged.exists() else content)

    def fail(self, domain: str, code: int, *texts: str, below: dict[str, Any] | None = None) -> NoReturn:
        keys = ("NSLocalizedDescription", "NSLocalizedFailureReason", "NSLocalizedRecoverySuggestion")
        info: dict[str, Any] = {key: {"string": text} for key, text in zip(keys, texts, strict=False)}
        if below:
            info["NSUnderlyingError"] = {"error": below}
        self.answer("failed", error={"code": code, "domain": domain, "userInfo": info})
        print(f"ERROR: {texts[0]} ({domain} error {code}.)", file=sys.stderr)
        sys.exit(1)

    def run(self) -> None:
        if self.name == "list devices":
            phones = [Phone(folder).listed() for folder in sorted((MAC / "phones").iterdir())]
            return self.answer("success", result={"devices": phones})
        phone = next((Phone(folder) for folder in (MAC / "phones").iterdir() if self.is_named(Phone(folder))), None)
        if phone is None:
            self.fail(CORE, 1000, f"The specified device was not found. (Name: {self.options['--device']})")
        if phone.state["tunnel"] == "unavailable":
            self.fail(CORE, 4000, "A connection to this device could not be established.")
        method = getattr(self, "_".join(self.name.split()[1:]))
        method(phone)
        return None

    def is_named(self, phone: Phone) -> bool:
        return self.options["--device"] in (phone.udid, phone.state["identifier"], phone.state["name"])

    def info_apps(self, phone: Phone) -> None:
        app = {
            "appClip": False, "builtByDeveloper": True, "bundleIdentifier": phone.app, "bundleVersion": "1",
            "hidden": False, "name": "Harness", "removable": True, "url": phone.url, "version": phone.state["version"],
        }  # fmt: skip
        other = {**app, "bundleIdentifier": "org.example.rddedge", "version": "9"}
        more = [{**app, "bundleIdentifier": name} for name in phone.state["more_apps"]]
        apps = [other, *([app] if phone.state["version"] else []), *more]
        self.answer("success", result={"apps": apps, "removableAppsIncluded": True})

    def info_processes(self, phone: Phone) -> None:
        running = [{"executable": "file:///usr/libexec/backboardd", "processIdentifier": 66}]
        if pid := phone.pid():
            running.append({"executable": f"{phone.url}Harness", "processIdentifier": pid})
        self.answer("success", result={"runningProcesses": running})

    def process_terminate(self, phone: Phone) -> None:
        if int(self.options["--pid"]) != phone.pid():
            self.fail(POSIX, 3, "The operation couldn’t be completed. No such process")
        phone.end_app()
        self.answer("success", result={})

    def remote(self, phone: Phone, path: str) -> Path:
        if (self.options["--domain-type"], self.options["--domain-identifier"]) != ("appDataContainer", phone.app):
            self.fail(CORE, 7000, "The domain is not one of this device.")
        if not phone.state["version"]:
            self.fail(CORE, 7000, f"There is no app {phone.app} on this device.")
        assert ".." not in Path(path).parts, path
        return phone.container / path

    def copy_to(self, phone: Phone) -> None:
        target, source = self.remote(phone, self.options["--destination"]), Path(self.options["--source"])
        if self.options.get("--remove-existing-content") == "true" and source.is_dir():
            shutil.rmtree(phone.container)
        files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
        free = phone.state["free_bytes"]
        for path in files:
            place = target / path.relative_to(source) if source.is_dir() else target
            free -= path.stat().st_size
            if free < 0:
                below = {"code": 28, "domain": POSIX, "userInfo": {}}
                self.fail(CORE, 7001, "The file transfer failed.", below=below)
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() and (place.stat().st_size, place.stat().st_mtime) == (
                path.stat().st_size,
                path.stat().st_mtime,
            ):
                continue
            shutil.copy2(path, place)
        self.answer("success", result={})

    def copy_from(self, phone: Phone) -> None:
        source, target = self.remote(phone, self.options["--source"]), Path(self.options["--destination"])
        if not source.exists():
            self.fail(CORE, 7000, f"Failed to retrieve the file node for {self.options['--source']}")
        if source.is_file():
            shutil.copy2(source, target)
        else:
            inside = target / source.name if phone.state["nested"] else target
            shutil.copytree(source, inside, symlinks=True, dirs_exist_ok=True)
        if phone.state["huge"]:
            with (target / "samples.u8").open("wb") as file:
                for _ in range(3000):  # half a minute, unless it is killed
                    file.write(bytes(1 << 16))
                    file.flush()
                    time.sleep(0.01)
        self.answer("success", result={})

    def process_launch(self, phone: Phone) -> None:
        if not self.rest or self.rest[0] != phone.app or not phone.state["version"]:
            self.fail(CORE, 10002, "The application failed to launch.", f"{self.rest[:1]} is not installed.")
        if phone.state["launch_error"]:
            reason = {"NSLocalizedFailureReason": {"string": phone.state["launch_error"]}}
            below = {"code": 7, "domain": "FBSOpenApplicationErrorDomain", "userInfo": reason}
            self.fail(CORE, 10002, "The application failed to launch.", below=below)
        if phone.pid():
            if "--terminate-existing" not in self.options:
                self.fail(CORE, 10002, "The application is running already.")
            phone.end_app()
        environment = {**os.environ, "HARNESS_ROOT": str(phone.container / "Documents"), **phone.state["environment"]}
        (phone.container / "Documents").mkdir(parents=True, exist_ok=True)
        app = subprocess.Popen(
            [*shlex.split((MAC / "app").read_text()), *self.rest[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
        (phone.folder / "process").write_text(str(app.pid))
        result = {"process": {"executable": f"{phone.url}Harness", "processIdentifier": app.pid}}
        if "--console" not in self.options:
            return self.answer("success", result=result)

        def interrupted(number: int, _: object) -> None:
            if not phone.state["deaf"]:
                os.killpg(app.pid, number)

        signal.signal(signal.SIGINT, interrupted)
        print(
            f"Launched application with {phone.app} bundle identifier.\nWaiting for the application to terminate…",
            flush=True,
        )
        self.relay(app, phone)
        code = app.wait()
        if code < 0:
            print(f"App terminated due to signal {-code}.", flush=True)
        self.answer("success", result=result)
        sys.exit(min(abs(code), 1))

    def relay(self, app: subprocess.Popen[bytes], phone: Phone) -> None:
        """Pass on what the app prints: at once to a terminal, else when 4 KiB have come together."""
        assert app.stdout is not None
        os.set_blocking(app.stdout.fileno(), False)
        kept = b""
        while True:
            if phone.state["tunnel"] == "unavailable":
                self.fail("com.apple.CoreDevice.ControlChannelConnectionError", 1,
                          "Internal logic error: Connection was invalidated")  # fmt: skip
            part = app.stdout.read(1 << 16)
            kept += part or b""
            if kept and (part == b"" or len(kept) >= 4096 or os.isatty(1)):
                os.write(1, kept)
                kept = b""
            if part == b"":
                return
            if part is None:
                time.sleep(0.02)


def main(words: list[str]) -> None:
    with (MAC / "commands.jsonl").open("a") as log:
        log.write(json.dumps(words) + "\n")
    if words[:1] != ["devicectl"]:
        usage(f'unable to find utility "{words[0]}", not a developer tool or in PATH')
    Command(words[1:]).run()


main(sys.argv[2:])
