"""Commands on another machine, one OpenSSH process each, with bounded output and without control characters."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from pydantic import Field

from .. import errors
from ..console import show_stage
from ..errors import ArtifactError, CorruptError, DeviceError, RddEdgeError, UsageError, printable
from ..reading.documents import parse_model
from ..schema import Frozen
from .processes import bounded, last_line, output_of

SSH = "ssh://"
CONFIG = "RDD_EDGE_SSH_CONFIG"  # path of an ssh_config to use in place of the user's
OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3",
)  # fmt: skip
STALL_SECONDS = 1800.0  # without any output: building an engine or copying a large bundle may take that long
MOST_LINE_BYTES = 4096  # of the harness's progress; a longer line is skipped
MISSING = "ssh:// devices need OpenSSH: apt-get install openssh-client"


@dataclass(frozen=True)
class Destination:
    """ssh://user@host[:port], where each command is a process of ssh; user and port default to ssh's configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    @staticmethod
    def parse(url: str) -> Destination:
        """Raises UsageError for any other form, in particular one that ssh might take for an option or a command."""
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
        config = ["-F", os.environ[CONFIG]] if os.environ.get(CONFIG) else []
        flags = [part for option in OPTIONS for part in ("-o", option)]
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        return ["ssh", "-T", *config, *flags, *port, *user, "--", self.host, remote]

    def call(self, command: Sequence[str], stdin: bytes = b"", most: int = MOST_LINE_BYTES) -> bytes:
        """The output of a command. Raises CorruptError for more than `most` bytes of it."""
        return bounded(self._output(command, stdin, harness=False), most, self)

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
        """The output of a command as it comes.

        Raises DeviceError after STALL_SECONDS without output, and the error that the exit code stands for; the exit
        codes of the harness are those of rdd_edge.errors.
        """
        stalled = DeviceError(f"{self} sent nothing for {STALL_SECONDS:g} s")

        def failed(code: int, _: bytes, stderr: bytes) -> RddEdgeError:
            return self._error(code, stderr, harness=harness)

        return output_of(self.command(shlex.join(command)), failed, MISSING, STALL_SECONDS, stalled, stdin)

    def _error(self, code: int, stderr: bytes, *, harness: bool) -> RddEdgeError:
        last = last_line(stderr, 500) or "no reason given"
        if code == 255:
            return DeviceError(f"{self} cannot be reached, or the connection to it broke: {last}")
        if code == 127:
            return DeviceError(f"{self} lacks a program: {last}")
        if code > 128 or code < 0:
            number = -code if code < 0 else code - 128
            name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else f"signal {number}"
            return ArtifactError(f"the harness on {self} was ended by {name}")
        kinds = {kind.exit_code: kind for kind in map(errors.__dict__.__getitem__, errors.__all__)}
        kind = kinds.get(code, DeviceError) if harness else DeviceError
        result: RddEdgeError = kind(f"{self}: {last}")
        return result


class _Progress(Frozen):
    """A line that the harness prints."""

    stage: str
    done: int = Field(ge=0, lt=2**63)


def show_progress(line: bytes) -> None:
    """Report a line of the harness's progress; anything else that the board printed is skipped."""
    try:
        progress = parse_model(line, _Progress, "the line")
    except CorruptError:
        return
    show_stage(printable(progress.stage, 40), progress.done)
