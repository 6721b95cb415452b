"""A bundle benched on another machine over ssh: copied there once, run by its own harness, the run brought back.

    ~/.cache/rdd-edge/bundles/<sha256>/    the bundle, which later runs find there
    ~/.cache/rdd-edge/runs/<random>/       plan.json and the run, removed when it was brought back

The user's OpenSSH does the rest: keys, jump hosts and host keys are its own, and an unknown host key is refused. What
comes back is believed only where it fits its record and the bundle and plan that were sent.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import select
import shlex
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .. import errors
from ..bundle import Bundle, Plan
from ..console import show_stage
from ..errors import ArtifactError, CorruptError, DependencyError, DeviceError, RddEdgeError, UsageError
from ..files import new_folder
from .record import RunRecord
from .run import read_bench_run

__all__ = ["SSH", "Destination", "bench_over_ssh"]

SSH = "ssh://"
CONFIG = "RDD_EDGE_SSH_CONFIG"  # another ssh_config than the user's
HOME = ".cache/rdd-edge"  # relative: a login starts in the user's home
FILES = ("plan.json", "record.json", "samples.u8", "samples.f32")
STALL_SECONDS = 1800.0  # without a word: an engine may be built for that long, and a large bundle be copied
# One login each, since a handshake costs more than the work. Names go in as arguments, never into the script.
UNPACK = 'mkdir -p "$1" && tar -C "$1" -xf - && mv -T "$1" "$2"'
# Runs whose link broke are swept away a day later, by the next one.
RUN = (
    'mkdir -p "$1" && find "${1%/*}" -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} + && cat > "$1/plan.json" && '
    'exec python3 -B "$2/harness/bench.py" --plan "$1/plan.json" --out "$1/out" --expect "$3" ${4:+--runtime "$4"}'
)
FETCH = 'tar -C "$1/out" -cf - . && rm -rf "$1"'


@dataclass(frozen=True)
class Destination:
    """ssh://user@host[:port]; user and port are ssh's own choice where they are not given."""

    host: str
    user: str | None = None
    port: int | None = None

    @staticmethod
    def parse(url: str) -> Destination:
        """Raises UsageError for anything that ssh might take for an option or a command."""
        pattern = r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?/?"
        match = re.fullmatch(pattern, url, re.ASCII)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65536):
            raise UsageError(f"{url!r} is no ssh://user@host[:port]")
        return Destination(match["host"].strip("[]"), match["user"], port)

    def __str__(self) -> str:
        return f"{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"

    def command(self, remote: str) -> list[str]:
        """ssh with this remote command line: never asks, never accepts an unknown host, notices a dead link."""
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
        }
        config = ["-F", os.environ[CONFIG]] if os.environ.get(CONFIG) else []
        chosen = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        return ["ssh", "-T", *config, *chosen, *port, *user, "--", self.host, remote]


def bench_over_ssh(
    bundle: Bundle,
    destination: Destination,
    out: Path,
    plan: Plan | None,
    runtime: str | None = None,
) -> RunRecord:
    """Bench a bundle on another machine; `out` is the whole run or what it was before.

    runtime: one of the harness's own names; None for the one that it takes by itself, as TensorRT on a Jetson.
    Raises DeviceError where the machine is not reached or the link breaks, and what the harness raised as itself.
    """
    if not (bundle.folder / "harness" / "bench.py").is_file():
        raise UsageError(f"{bundle.folder} has no harness to run on another machine: the {bundle.manifest.target} "
                         "target brings none, or it was exported before there was one")  # fmt: skip
    plan = plan or bundle.manifest.default_plan
    link = _Link(destination)
    place = f"{HOME}/bundles/{bundle.sha256}"
    run = f"{HOME}/runs/{secrets.token_hex(16)}"
    _send_bundle(link, bundle, place)
    try:
        link.follow(["sh", "-c", RUN, "sh", run, place, bundle.sha256, runtime or ""], plan.model_dump_json().encode())
        content = link.call(["sh", "-c", FETCH, "sh", run])
    except CorruptError:
        link.call(["rm", "-rf", place, run])  # a copy that was damaged there is sent anew by the next run
        raise
    except RddEdgeError:
        link.forget(["rm", "-rf", run])
        raise
    return _accept(content, bundle, plan, destination, out)


def _send_bundle(link: _Link, bundle: Bundle, place: str) -> None:
    """Copy the bundle unless it is there; it appears under its name only when it is whole."""
    if link.call(["sh", "-c", 'test ! -f "$1/manifest.json" || echo there', "sh", place]).strip() == b"there":
        return
    show_stage("copy", 0)
    beside = f"{place}.{secrets.token_hex(8)}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("manifest.json", *bundle.manifest.files):
            tar.add(bundle.folder / name, name, recursive=False)
    link.call(["sh", "-c", UNPACK, "sh", beside, place], archive.getvalue())


def _accept(content: bytes, bundle: Bundle, plan: Plan, destination: Destination, out: Path) -> RunRecord:
    """Unpack what came back and put it in place, if it is the run that was asked for."""
    with new_folder(out.resolve()) as folder:
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if name in FILES and member.isreg():
                        source = tar.extractfile(member)
                        assert source is not None  # it is a regular file
                        (folder / name).write_bytes(source.read())
                    elif name not in (".", "") or not member.isdir():
                        raise CorruptError(f"{destination} sent back {name[:80]!r}, which no bench run has")
        except tarfile.TarError:
            raise CorruptError(f"what {destination} sent back is truncated: run it again") from None
        run = read_bench_run(folder)
        if run.record.bundle_sha256 != bundle.sha256 or run.plan != plan:
            raise CorruptError(f"{destination} sent back the run of another bundle or plan than it was given")
    return run.record


class _Link:
    """Commands on the other machine, one ssh process each."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination

    def call(self, command: Sequence[str], stdin: bytes = b"") -> bytes:
        """What a command prints."""
        try:
            whole = self.destination.command(shlex.join(command))
            done = subprocess.run(whole, input=stdin, capture_output=True, check=False, timeout=STALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.destination} did not answer within {STALL_SECONDS:g} s") from None
        except FileNotFoundError:
            raise DependencyError("benching over ssh needs OpenSSH's client: apt-get install openssh-client") from None
        if done.returncode:
            raise self._error(done.returncode, done.stderr, harness=False)
        return done.stdout

    def forget(self, command: Sequence[str]) -> None:
        """Clean up, and let a broken link be: it has been reported already."""
        try:
            self.call(command)
        except DeviceError:
            return

    def follow(self, command: Sequence[str], stdin: bytes) -> None:
        """Run the harness, passing its progress on as it comes."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                self.destination.command(shlex.join(command)),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            try:
                assert process.stdout is not None
                self._read(process.stdout)
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            said.seek(0)
            if code:
                raise self._error(code, said.read(), harness=True)

    def _read(self, stream: IO[bytes]) -> None:
        """Lines as they come, until the other side closes. Raises DeviceError where it says nothing for too long."""
        rest = b""
        while True:
            ready, _, _ = select.select([stream], [], [], STALL_SECONDS)
            if not ready:
                raise DeviceError(f"the harness on {self.destination} said nothing for {STALL_SECONDS:g} s")
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._tell(line)

    def _tell(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            stage, done = str(told["stage"])[:40], int(told["done"])
        except (ValueError, TypeError, KeyError):
            return  # something else on the board printed
        show_stage(stage, done)

    def _error(self, code: int, stderr: bytes, *, harness: bool) -> RddEdgeError:
        text = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
        last = "".join(c if c.isprintable() else "?" for c in text[-1])[:500] if text else "no reason given"
        if code == 255:
            return DeviceError(f"{self.destination} cannot be reached, or the link to it broke: {last}")
        if code == 127:
            return DeviceError(f"{self.destination} lacks a program: {last}")
        if code > 128 or code < 0:
            number = -code if code < 0 else code - 128
            name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else f"signal {number}"
            return ArtifactError(f"the harness on {self.destination} was ended by {name}")
        kinds = {kind.exit_code: kind for kind in map(errors.__dict__.__getitem__, errors.__all__)}
        kind = kinds.get(code, DeviceError) if harness else DeviceError
        result: RddEdgeError = kind(f"{self.destination}: {last}")
        return result
