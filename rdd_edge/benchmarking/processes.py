"""The output of another program, part by part as it comes."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from collections.abc import Generator, Sequence

from ..errors import DependencyError, printable

__all__ = ["last_line", "output_of"]

MOST_STDERR_BYTES = 1 << 16  # of its end


def output_of(
    command: Sequence[str], wait_seconds: float, advice: str, stdin: bytes = b""
) -> Generator[bytes, None, tuple[int, bytes]]:
    """Run a program, yield its output, and return its exit code and the end of its stderr.

    An empty part is yielded whenever nothing came for `wait_seconds`. Closing the generator kills the program.
    advice: message of the DependencyError where the program is not installed.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as stderr:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=given, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
            )
        except FileNotFoundError:
            raise DependencyError(advice) from None
        with process:
            try:
                assert process.stdout is not None
                while True:
                    if not select.select([process.stdout], [], [], wait_seconds)[0]:
                        yield b""
                    elif part := os.read(process.stdout.fileno(), 1 << 16):
                        yield part
                    else:
                        break
                code = process.wait()
            finally:
                process.kill()
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - MOST_STDERR_BYTES))
        return code, stderr.read()


def last_line(output: bytes) -> str:
    """The last line that is not empty, safe for a terminal."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1], 500) if lines else "no reason given"
