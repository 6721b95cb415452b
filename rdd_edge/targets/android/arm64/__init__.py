"""A .pte file on ARM's own kernels, on a machine without an ARM processor.

runner.cpp      a small C++ program around ExecuTorch's Module
toolchain.py    the cross compiler and the emulator: Debian's packages, found or named
sdk.py          ExecuTorch's headers and libraries for ARM, from its aarch64 wheel
build.py        runner.cpp compiled for ARM, or for this machine as a check of the program itself
runner.py       the compiled program under qemu, one CPU model at a time
"""

from __future__ import annotations

from .runner import CPU_MODELS, emulated_runners, native_runner

__all__ = ["CPU_MODELS", "emulated_runners", "native_runner"]
