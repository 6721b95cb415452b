"""An Android device that exists in a folder: it speaks adb's protocol over TCP to the real adb program.

Transport (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE), the services `exec:`, `shell:` and `sync:` (STAT, LIST, SEND, RECV), no
features. Commands are run by this machine's shell, with the device's own programs (am, pm, logcat, …) first on the PATH
and /sdcard and /data below the folder, so that quoting is a real shell's.

    state/         what tests set: airplane, battery, boot_reason, full, version, kill_after_push, …
    log/           main and crash, one line each
    sdcard/ data/  the device's files
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).parent / "fakes" / "android" / "device"
PROGRAMS = ("am", "dumpsys", "getprop", "log", "logcat", "pidof", "pm", "settings")
SYNC, CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"SYNC", b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, MOST_DATA = 0x01000001, 1 << 18
ADB = shutil.which("adb")
APP_VERSION = "3"  # of the app that belongs to this rdd-edge


class AdbServer:
    """A server of the real adb program, of this test alone."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        home.mkdir(exist_ok=True)
        self.home = home
        self.environment = {"ANDROID_ADB_SERVER_PORT": str(self.port), "HOME": str(home), "ADB_MDNS_AUTO_CONNECT": "0"}
        self._start()

    def _start(self) -> None:
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["adb", "server", "nodaemon"], env={**os.environ, **self.environment}, stdout=log, stderr=log
            )
        for _ in range(100):  # a client that finds no server would start one of its own
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"adb's server did not start: {(self.home / 'server.log').read_text()}")

    def connect(self, serial: str) -> None:
        """Connect a device to the server. A server of adb 29 has been seen to hang from its start."""
        environment = {**os.environ, **self.environment}
        for _ in range(3):
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(
                    ["adb", "connect", serial], env=environment, capture_output=True, text=True, timeout=20
                )
                said = done.stdout + done.stderr
                assert "connected" in said or "authenticate" in said, said
                return
            self.close()
            self._start()
        raise AssertionError(f"adb's server does not answer: {(self.home / 'server.log').read_text()}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Stream:
    """One service of a connection; a write waits until the other side has taken the one before."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.connection, self.local, self.remote = connection, local, remote
        self.ready, self.closed = threading.Semaphore(1), False
        self.reader, self.writer = socket.socketpair()  # what the host wrote, for the service to read

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MOST_DATA):
            if not self.ready.acquire(timeout=60) or self.closed:
                raise ConnectionError
            self.connection.send(WRTE, self.local, self.remote, data[start : start + MOST_DATA])

    def read(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.reader.recv(min(size - len(parts), 1 << 16))
            if not part:
                raise ConnectionError
            parts += part
        return parts

    def close(self) -> None:
        self.closed = True
        self.ready.release()
        self.writer.close()


class Connection:
    """One connection of an adb server."""

    def __init__(self, device: AdbDevice, link: socket.socket) -> None:
        self.device, self.link, self.lock = device, link, threading.Lock()
        self.streams: dict[int, Stream] = {}

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = struct.pack("<6I", command, first, second, len(data), sum(data), command ^ 0xFFFFFFFF)
        with self.lock:
            self.link.sendall(header + data)

    def serve(self) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            while header := self._receive(24):
                command, first, second, length, _, _ = struct.unpack("<6I", header)
                self._handle(command, first, second, self._receive(length))
        for stream in list(self.streams.values()):
            stream.close()
        self.link.close()

    def _receive(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.link.recv(size - len(parts))
            if not part:
                raise ConnectionError
            parts += part
        return bytes(parts)

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (CNXN, AUTH):
            if not self.device.authorized:
                if command == CNXN or first == 2:  # a signature; the public key that follows is never accepted
                    self.send(AUTH, 1, 0, bytes(20))
                return
            banner = "device::ro.product.name=sim;ro.product.model=Simulated_phone;ro.product.device=sim;"
            self.send(CNXN, VERSION, MOST_DATA, banner.encode())
        elif command == OPEN:
            stream = Stream(self, len(self.streams) + 1, first)
            self.streams[stream.local] = stream
            threading.Thread(target=self._run, args=(stream, data.rstrip(b"\0").decode()), daemon=True).start()
        elif command == WRTE:
            self.streams[second].writer.sendall(data)
            self.send(OKAY, second, first)
        elif command == OKAY and second in self.streams:
            self.streams[second].ready.release()
        elif command == CLSE and second in self.streams:
            self.streams[second].close()

    def _run(self, stream: Stream, service: str) -> None:
        kind, _, command = service.partition(":")
        stream.ready.acquire()
        self.send(OKAY, stream.local, stream.remote)
        stream.ready.release()
        with contextlib.suppress(ConnectionError):
            if kind == "sync":
                Sync(self.device, stream).serve()
            elif kind in ("exec", "shell"):
                self.device.execute(command, stream)
        with contextlib.suppress(OSError):  # the cable was cut
            self.send(CLSE, stream.local, stream.remote)


class Sync:
    """File transfers."""

    def __init__(self, device: AdbDevice, stream: Stream) -> None:
        self.device, self.stream = device, stream

    def serve(self) -> None:
        while True:
            name, length = struct.unpack("<4sI", self.stream.read(8))
            if name == b"QUIT":
                return
            argument = self.stream.read(length).decode()
            {b"STAT": self.stat, b"LIST": self.list, b"SEND": self.receive, b"RECV": self.send}[name](argument)

    def stat(self, path: str) -> None:
        self.stream.write(b"STAT" + self._stat(self.device.path(path)))

    def _stat(self, path: Path) -> bytes:
        if not path.exists():
            return bytes(12)
        found = path.stat()
        return struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))

    def list(self, path: str) -> None:
        for entry in sorted(self.device.path(path).iterdir()):
            name = entry.name.encode()
            self.stream.write(b"DENT" + self._stat(entry) + struct.pack("<I", len(name)) + name)
        self.stream.write(b"DONE" + bytes(16))

    def receive(self, argument: str) -> None:
        name, _, mode = argument.rpartition(",")
        path = self.device.path(name)
        if "/Android/data/" in name:  # as on some phones, a Pixel 6 Pro with Android 13 among them
            self.fail("secure_mkdirs failed: Operation not permitted")
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o775)
        left = self.device.free_bytes
        with path.open("wb") as file:
            while True:
                name, length = struct.unpack("<4sI", self.stream.read(8))
                if name == b"DONE":
                    break
                data = self.stream.read(length)
                left -= len(data)
                if left >= 0:
                    file.write(data)
        if left < 0:
            path.unlink()
            self.fail("couldn't write file: No space left on device")
        user = int(mode) & 0o700
        path.chmod(user | user >> 3 | user >> 6)  # as adbd does
        self.stream.write(struct.pack("<4sI", b"OKAY", 0))

    def fail(self, reason: str) -> None:
        self.stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())
        raise ConnectionError

    def send(self, path: str) -> None:
        with self.device.path(path).open("rb") as file:
            while data := file.read(1 << 16):
                self.stream.write(struct.pack("<4sI", b"DATA", len(data)) + data)
        self.stream.write(struct.pack("<4sI", b"DONE", 0))


class AdbDevice:
    """A device that listens on a port of the loopback address."""

    def __init__(self, folder: Path, app: list[str] | None = None) -> None:
        self.folder, self.authorized, self.free_bytes = folder, True, 1 << 40
        for name in ("state", "log", "sdcard", "data/app", "data/local/tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "bin").mkdir()
        for name in PROGRAMS:
            (folder / "bin" / name).symlink_to(SCRIPT)
        for name in ("log/main", "log/crash"):
            (folder / name).touch()
        self.set_app(app or ["true"])
        self.set(installed=APP_VERSION, airplane="1", level="80", temperature="281", boot_reason="reboot")
        self.environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}  # of its programs
        self.commands: list[str] = []  # that the host has sent
        self.answer: Callable[[str], bytes | None] = lambda command: None  # in place of running a command
        self.links: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._listen, args=(self.listener,), daemon=True).start()

    def set_app(self, command: list[str]) -> None:
        """Command line that `am start` runs, followed by the device's folder and am's arguments."""
        (self.folder / "app.sh").write_text(shlex.join(command))

    def set(self, **state: str) -> None:
        """What the device's programs say of it; the empty string removes it."""
        for name, value in state.items():
            path = self.folder / "state" / name
            path.write_text(value) if value else path.unlink(missing_ok=True)

    def path(self, path: str) -> Path:
        """Of a file of the device, on this machine."""
        assert re.match(r"/(sdcard|data)/", path) and ".." not in Path(path).parts, path
        return self.folder / path[1:]

    @property
    def home(self) -> Path:
        """The app's own folder."""
        return self.folder / "sdcard/Android/media/org.rddedge.harness"

    @property
    def inbox(self) -> Path:
        """Adb's own folder."""
        return self.folder / "data/local/tmp/rdd-edge"

    def left(self, name: str) -> list[str]:
        """What is left of "bundles", "plans" or "runs"."""
        folder = (self.home if name == "runs" else self.inbox) / name
        return sorted(os.listdir(folder)) if folder.exists() else []

    def execute(self, command: str, stream: Stream) -> None:
        self.commands.append(command)
        if (answer := self.answer(command)) is not None:
            stream.write(answer)
            return
        mapped = "umask 077; " + re.sub(r"(?<![\w.-])/(sdcard|data)/", rf"{self.folder}/\1/", command)
        environment = {**self.environment, "PATH": f"{self.folder}/bin:/usr/bin:/bin", "DEVICE": str(self.folder)}
        process = subprocess.Popen(
            ["/bin/sh", "-c", mapped], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder,
        )  # fmt: skip
        threading.Thread(target=self._end_with, args=(stream, process), daemon=True).start()
        assert process.stdout is not None
        try:
            while part := os.read(process.stdout.fileno(), 1 << 16):
                stream.write(part)
        finally:
            process.wait()

    def _end_with(self, stream: Stream, process: subprocess.Popen[bytes]) -> None:
        """A command ends with its stream, as a `logcat` that nobody reads. One that has ended is let alone: an app that
        `am start` leaves behind is in its group until `setsid` has run."""
        while process.poll() is None:
            if stream.closed:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    def app_pid(self) -> int | None:
        """Process of the running app."""
        path = self.folder / "state/pid"
        pid = int(path.read_text()) if path.exists() else 0
        return pid if pid and Path(f"/proc/{pid}").exists() else None

    def kill_app(self, crash: str = "", again: bool = False) -> None:
        """End the app as the system does, with these lines in the crash log.

        again: the system starts it once more, as it does when the user comes back to it.
        """
        pid = self.app_pid()
        assert pid is not None
        with (self.folder / "log/crash").open("a") as log:
            log.write(crash.replace("PID", str(pid)))
        os.killpg(pid, signal.SIGKILL)
        if again:
            idle = subprocess.Popen(["sleep", "600"], start_new_session=True)
            (self.folder / "state/pid").write_text(f"{idle.pid}\n")

    def unplug(self) -> None:
        """Cut the cable; `plug_in` is not possible."""
        with contextlib.suppress(OSError):  # unplugged before
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for link in self.links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.unplug()
        if pid := self.app_pid():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _listen(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                self.links.append(link)
                threading.Thread(target=Connection(self, link).serve, daemon=True).start()
