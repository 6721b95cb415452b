"""A benchmark run on another machine over ssh: the bundle is copied there, run by its harness, the result fetched.

    ~/.cache/rdd-edge/bundles/<sha256>/    the bundle, kept for later runs
    ~/.cache/rdd-edge/runs/<random>/       plan.json and the run, removed once it was fetched

Keys, jump hosts and host keys are those of the user's OpenSSH configuration; an unknown host key is refused. The other
machine is not trusted: what it sends is bounded in size, cleaned of control characters, and accepted only if it is the
run of the bundle and the plan that were sent.
"""

from __future__ import annotations

import io
import math
import os
import re
import secrets
import select
import shlex
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from .. import errors
from ..bundle import Bundle, Plan
from ..console import show_stage
from ..errors import (
    ArtifactError,
    CorruptError,
    DependencyError,
    DeviceError,
    MissingError,
    RddEdgeError,
    UsageError,
    printable,
)
from ..files import MOST_JSON_BYTES, new_folder
from ..schema import Frozen
from .record import RunRecord
from .run import PLAN, RECORD, SAMPLES, read_bench_run

__all__ = ["SSH", "Destination", "bench_over_ssh"]

SSH = "ssh://"
CONFIG = "RDD_EDGE_SSH_CONFIG"  # path of an ssh_config to use in place of the user's
HOME = ".cache/rdd-edge"  # relative, because a login starts in the user's home
STALL_SECONDS = 1800.0  # without any output: building an engine or copying a large bundle may take that long
MOST_LINE_BYTES = 4096  # of the harness's progress; a longer line is skipped
MOST_STDERR_BYTES = 1 << 16  # of its end, in which the last line is looked for
TAR_BYTES = 1 << 16  # headers and padding of a few files, generously
# Each script is one login, because a handshake takes longer than the work. Names are arguments, never in the script.
UNPACK = 'mkdir -p "$1" && tar -C "$1" -xf - && mv -T "$1" "$2"'
# Runs that a broken connection left behind are removed by the next run, a day later at the earliest.
RUN = (
    'mkdir -p "$1" && find "${1%/*}" -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} + && cat > "$1/plan.json" && '
    'exec python3 -B "$2/harness/bench.py" --plan "$1/plan.json" --out "$1/out" --expect "$3" ${4:+--runtime "$4"}'
)
FETCH = 'tar -C "$1/out" -cf - . && rm -rf "$1"'


@dataclass(frozen=True)
class Destination:
    """ssh://user@host[:port]; without user and port, ssh uses its configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    @staticmethod
    def parse(url: str) -> Destination:
        """Raises UsageError for any other form, in particular what ssh might take for an option or a command."""
        pattern = r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?/?"
        match = re.fullmatch(pattern, url, re.ASCII)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65536):
            raise UsageError(f"{url!r} is not a destination: expected ssh://user@host[:port]")
        return Destination(match["host"].strip("[]"), match["user"], port)

    def __str__(self) -> str:
        return f"{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"

    def command(self, remote: str) -> list[str]:
        """ssh with this remote command line: without prompts, refusing unknown hosts, noticing a dead connection."""
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
        }
        config = ["-F", os.environ[CONFIG]] if os.environ.get(CONFIG) else []
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        return ["ssh", "-T", *config, *flags, *port, *user, "--", self.host, remote]


def bench_over_ssh(
    bundle: Bundle,
    destination: Destination,
    out: Path,
    plan: Plan | None,
    runtime: str | None = None,
) -> RunRecord:
    """Run a bundle on another machine and write the benchmark run to `out`, which is replaced as a whole or not at all.

    runtime: one that the bundle's harness offers; None for its default, e.g. TensorRT on a Jetson.
    Raises DeviceError where the machine cannot be reached or the connection breaks, CorruptError for a run that is not
    the one asked for, and the harness's own errors.
    """
    if not (bundle.folder / "harness" / "bench.py").is_file():
        raise UsageError(
            f"{bundle.folder} has no harness to run on another machine: the {bundle.manifest.target} target has none, "
            "or the bundle was exported before it had one"
        )
    plan = plan or bundle.manifest.default_plan
    most = most_bytes(bundle, plan)
    connection = _Connection(destination)
    remote_bundle = f"{HOME}/bundles/{bundle.sha256}"
    remote_run = f"{HOME}/runs/{secrets.token_hex(16)}"
    _send_bundle(connection, bundle, remote_bundle)
    try:
        harness = ["sh", "-c", RUN, "sh", remote_run, remote_bundle, bundle.sha256, runtime or ""]
        connection.run_harness(harness, plan.model_dump_json().encode())
        archive = connection.call(["sh", "-c", FETCH, "sh", remote_run], most=sum(most.values()) + TAR_BYTES)
    except CorruptError:
        connection.call(["rm", "-rf", remote_bundle, remote_run])  # the next run sends a copy that was damaged there
        raise
    except RddEdgeError:
        connection.try_call(["rm", "-rf", remote_run])
        raise
    with new_folder(out.resolve()) as folder:
        unpack(archive, folder, most, destination)
        return _check(folder, bundle, plan, destination)


def _send_bundle(connection: _Connection, bundle: Bundle, folder: str) -> None:
    """Copy the bundle unless it is there; it appears under its name only when it is complete."""
    test = ["sh", "-c", 'test ! -f "$1/manifest.json" || echo there', "sh", folder]
    if connection.call(test).strip() == b"there":
        return
    show_stage("copy", 0)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("manifest.json", *bundle.manifest.files):
            tar.add(bundle.folder / name, name, recursive=False)
    connection.call(["sh", "-c", UNPACK, "sh", f"{folder}.{secrets.token_hex(8)}", folder], archive.getvalue())


def most_bytes(bundle: Bundle, plan: Plan) -> dict[str, int]:
    """The largest size of each file of the run, by name."""
    values = math.prod(bundle.manifest.input.shape[1:])
    samples, floats = plan.accuracy.samples, min(plan.accuracy.samples, plan.accuracy.floats)
    sizes = (samples * values, 4 * floats * values)
    return {PLAN: MOST_JSON_BYTES, RECORD: MOST_JSON_BYTES, **dict(zip(SAMPLES, sizes, strict=True))}


def unpack(archive: bytes, folder: Path, most: dict[str, int], destination: Destination) -> None:
    """Write the files of an uncompressed tar into `folder`; each must be a regular file named in `most`, and no larger.

    Raises CorruptError for anything else, and for a truncated archive.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isdir() and name in (".", ""):
                    continue
                if name not in most or not member.isreg():
                    raise CorruptError(f"{destination} sent back {name[:80]!r}, which is not part of a benchmark run")
                if member.size > most[name]:
                    raise CorruptError(
                        f"{destination} sent back {name} with {member.size} bytes; the plan allows {most[name]}"
                    )
                source = tar.extractfile(member)
                assert source is not None  # it is a regular file
                (folder / name).write_bytes(source.read())
    except (tarfile.TarError, ValueError, RecursionError):
        raise CorruptError(f"the benchmark run from {destination} is truncated or not a tar: run it again") from None


def _check(folder: Path, bundle: Bundle, plan: Plan, destination: Destination) -> RunRecord:
    """The record of the run in `folder`, if it is the run of this bundle and this plan."""
    try:
        run = read_bench_run(folder)
    except (CorruptError, MissingError) as error:
        reason = str(error).replace(f"{folder}/", "")
        raise CorruptError(f"the benchmark run from {destination} is not valid: {reason}") from None
    if run.record.bundle_sha256 != bundle.sha256 or run.plan != plan:
        raise CorruptError(f"{destination} sent back the run of another bundle or plan")
    return run.record


class _Progress(Frozen):
    """A line that the harness prints."""

    stage: str
    done: int = Field(ge=0, lt=2**63)


class _Connection:
    """Commands on the other machine, one ssh process each."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination

    def call(self, command: Sequence[str], stdin: bytes = b"", most: int = MOST_LINE_BYTES) -> bytes:
        """The output of a command. Raises CorruptError for more than `most` bytes of it."""
        output = bytearray()
        with closing(self._output(command, stdin, harness=False)) as parts:
            for part in parts:
                output += part
                if len(output) > most:
                    raise CorruptError(f"{self.destination} sent back more than the {most} bytes that were expected")
        return bytes(output)

    def try_call(self, command: Sequence[str]) -> None:
        """Call a command that cleans up; a broken connection was reported already."""
        try:
            self.call(command)
        except DeviceError:
            return

    def run_harness(self, command: Sequence[str], stdin: bytes) -> None:
        """Run the harness and report its progress."""
        line = b""
        with closing(self._output(command, stdin, harness=True)) as parts:
            for part in parts:
                *lines, line = (line + part).split(b"\n")
                for complete in lines:
                    show_progress(complete)
                line = line[: MOST_LINE_BYTES + 1]

    def _output(self, command: Sequence[str], stdin: bytes, *, harness: bool) -> Generator[bytes, None, None]:
        """Run a command and yield its output as it comes.

        Raises DeviceError after STALL_SECONDS without output, and the error that the exit code stands for; the exit
        codes of the harness are those of rdd_edge.errors.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as stderr:
            given.write(stdin)
            given.seek(0)
            ssh = self.destination.command(shlex.join(command))
            try:
                process = subprocess.Popen(
                    ssh, stdin=given, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
                )
            except FileNotFoundError:
                raise DependencyError("ssh:// devices need OpenSSH: apt-get install openssh-client") from None
            with process:
                try:
                    assert process.stdout is not None
                    while True:
                        if not select.select([process.stdout], [], [], STALL_SECONDS)[0]:
                            raise DeviceError(f"{self.destination} sent nothing for {STALL_SECONDS:g} s")
                        part = os.read(process.stdout.fileno(), 1 << 16)
                        if not part:
                            break
                        yield part
                    code = process.wait()
                finally:
                    process.kill()
            if code:
                stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - MOST_STDERR_BYTES))
                raise self._error(code, stderr.read(), harness=harness)

    def _error(self, code: int, stderr: bytes, *, harness: bool) -> RddEdgeError:
        lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
        last = printable(lines[-1], 500) if lines else "no reason given"
        if code == 255:
            return DeviceError(f"{self.destination} cannot be reached, or the connection to it broke: {last}")
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


def show_progress(line: bytes) -> None:
    """Report a line of the harness's progress; anything else that the board printed is skipped."""
    try:
        progress = _Progress.model_validate_json(line)
    except ValidationError:
        return
    show_stage(printable(progress.stage, 40), progress.done)
