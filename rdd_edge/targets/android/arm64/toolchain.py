"""Paths of the compilers and the emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ....errors import DependencyError

SYSROOT = Path("/usr/aarch64-linux-gnu")  # ARM's C and C++ libraries of Debian's cross compiler
INSTALL = "apt-get install g++-aarch64-linux-gnu qemu-user-static"


def cross_compiler() -> str:
    """Path of the C++ compiler for ARM. Raises DependencyError."""
    found = shutil.which("aarch64-linux-gnu-g++")
    if found is None or not SYSROOT.is_dir():
        raise DependencyError(f"running an artifact on arm64 needs aarch64-linux-gnu-g++: {INSTALL}")
    return found


def emulator() -> str:
    """Path of qemu's user-mode emulator for ARM. Raises DependencyError."""
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        raise DependencyError(f"running an artifact on arm64 needs qemu-aarch64-static: {INSTALL}")
    return found


def native_compiler() -> str:
    """Path of this machine's own C++ compiler. Raises DependencyError."""
    found = shutil.which("g++")
    if found is None:
        raise DependencyError("building the runner for this machine needs g++: apt-get install g++")
    return found


def version_line(program: str) -> str:
    """The first line that `program --version` prints."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0]
