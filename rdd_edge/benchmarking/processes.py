"""The output of another program, part by part as it comes."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from ..errors import CorruptError, DependencyError, RddEdgeError, printable

MOST_TAIL_BYTES = 1 << 16  # of stdout and of stderr, in which a failure is explained


def output_of(
    command: Sequence[str],
    failed: Callable[[int, bytes, bytes], RddEdgeError],
    missing: str,
    wait_seconds: float,
    stalled: RddEdgeError | None = None,
    stdin: bytes = b"",
) -> Generator[bytes, None, None]:
    """Run a program and yield its output. Closing the generator kills the program.

    failed: the error for an exit code other than 0 and the ends of stdout and stderr.
    missing: message of the DependencyError where the program is not installed.
    stalled: raised where nothing came for `wait_seconds`; None: b"" is yielded then.
    """
    tail = b""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as stderr:
        source.write(stdin)
        source.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=source, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
            )
        except FileNotFoundError:
            raise DependencyError(missing) from None
        with process:
            try:
                assert process.stdout is not None
                while True:
                    if not select.select([process.stdout], [], [], wait_seconds)[0]:
                        if stalled:
                            raise stalled
                        yield b""
                        continue
                    part = os.read(process.stdout.fileno(), 1 << 16)
                    if not part:
                        break
                    tail = (tail + part)[-MOST_TAIL_BYTES:]
                    yield part
                code = process.wait()
            finally:
                process.kill()
        if code:
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - MOST_TAIL_BYTES))
            raise failed(code, tail, stderr.read())


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
