"""The output of another program, part by part as it comes."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress

from ..errors import CorruptError, DependencyError, RddEdgeError, printable

MOST_TAIL_BYTES = 1 << 16  # of stdout and of stderr, in which a failure is explained
MOST_LINE_BYTES = 4096  # of a line that is read while the program runs; the rest of a longer one is left out


def output_of(
    command: Sequence[str],
    failed: Callable[[int, bytes, bytes], RddEdgeError],
    missing: str,
    wait_seconds: float,
    stalled: RddEdgeError | None = None,
    stdin: bytes = b"",
    terminal: bool = False,
    end_seconds: float = 0.0,
) -> Generator[bytes, None, None]:
    """Run a program and yield its output. Closing the generator ends the program.

    failed: the error for an exit code other than 0 and the ends of stdout and stderr.
    missing: message of the DependencyError where the program is not installed.
    stalled: raised where nothing came for `wait_seconds`; None: b"" is yielded then.
    terminal: give it a terminal for stdout and stderr, because it would keep back what it writes to a pipe.
    end_seconds: how long an interrupted program may take to end, before it is killed; 0: it is killed at once.
    """
    tail = b""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as stderr:
        source.write(stdin)
        source.seek(0)
        read, write = os.openpty() if terminal else os.pipe()
        with open(read, "rb", buffering=0) as output:
            try:
                process = subprocess.Popen(
                    command, stdin=source, stdout=write, stderr=write if terminal else stderr, start_new_session=True
                )
            except FileNotFoundError:
                raise DependencyError(missing) from None
            finally:
                os.close(write)
            with process:
                try:
                    while True:
                        if not select.select([output], [], [], wait_seconds)[0]:
                            if stalled:
                                raise stalled
                            yield b""
                            continue
                        part = _read(read)
                        if not part:
                            break
                        tail = (tail + part)[-MOST_TAIL_BYTES:]
                        yield part
                    code = process.wait()
                finally:
                    _end(process, end_seconds)
        if code:
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - MOST_TAIL_BYTES))
            raise failed(code, tail, stderr.read())


def _read(file: int) -> bytes:
    """The next part of a program's output; nothing at its end, which Linux reports for a terminal as an error."""
    try:
        return os.read(file, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End a program if it runs: by an interrupt of its whole session where it has time for that, or else by force."""
    if seconds and process.poll() is None:
        with suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(seconds)
    process.kill()


def lines_of(parts: Iterable[bytes]) -> Iterator[str | None]:
    """The lines of a program's output as they come, at most MOST_LINE_BYTES of each; None for an empty part."""
    line = b""
    for part in parts:
        *lines, line = (line + part).split(b"\n")
        line = line[:MOST_LINE_BYTES]
        for complete in lines:
            yield complete[:MOST_LINE_BYTES].decode(errors="replace").strip()
        if not part:
            yield None
    if line:
        yield line.decode(errors="replace").strip()


def bounded(parts: Generator[bytes, None, None], most: int, sender: object) -> bytes:
    """All parts as one. Raises CorruptError where they are more than `most` bytes."""
    output = bytearray()
    with closing(parts):
        for part in parts:
            output += part
            if len(output) > most:
                raise CorruptError(f"{sender} sent back more than the {most} bytes that were expected")
    return bytes(output)


def last_line(output: bytes, length: int) -> str:
    """The last line of a program's output that is not blank, or nothing, fit for a terminal."""
    lines = output.decode(errors="replace").strip().splitlines()
    return printable(lines[-1].strip(), length) if lines else ""
