"""Runs a .pte file with ExecuTorch's ARM kernels on a machine without an ARM processor.

runner.cpp      a small C++ program around ExecuTorch's Module
toolchain.py    the cross compiler and the emulator, from Debian's packages
sdk.py          ExecuTorch's headers and libraries for ARM, from its aarch64 wheel
build.py        compiles runner.cpp for ARM, or for this machine to check the program itself
runner.py       runs the compiled program under qemu, one CPU model at a time
"""

from __future__ import annotations

from .runner import CPU_MODELS, emulated_runners, native_runner

__all__ = ["CPU_MODELS", "emulated_runners", "native_runner"]
