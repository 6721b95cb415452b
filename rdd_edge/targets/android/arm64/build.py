"""runner.cpp compiled against an SDK. A build is kept in the cache folder under a hash of what went into it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from ....data.cache import cache_root
from ....errors import DependencyError
from .sdk import arm64_sdk, executorch_version, made_once, native_sdk
from .toolchain import cross_compiler, native_compiler, version_line

__all__ = ["arm64_program", "native_program"]

SOURCE = Path(__file__).with_name("runner.cpp")
FLAGS = ("-std=c++17", "-O1", "-w")  # ExecuTorch's own headers warn of their own deprecations
# As the wheel's CMake configuration has them: its headers need no file that only a build of PyTorch generates.
DEFINITIONS = ("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL")
C10 = "include/executorch/runtime/core/portable_type/c10"
LIBRARIES = tuple(
    f"libexecutorch{name}.so"
    for name in ("", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack", "_threadpool", "_etdump")
)


def arm64_program() -> Path:
    """The program for ARM, compiled the first time. Raises DependencyError, or CorruptError for a foreign wheel."""
    compiler = cross_compiler()  # first, since a missing compiler should not cost a download
    return _built(compiler, arm64_sdk())


def native_program() -> Path:
    """The program for this machine, over the installed executorch. Raises DependencyError."""
    return _built(native_compiler(), native_sdk())


def _built(compiler: str, sdk: Path) -> Path:
    lib = sdk / "lib"
    options = [*FLAGS, *DEFINITIONS, f"-I{sdk / 'include'}", f"-I{sdk / C10}", str(SOURCE)]
    # Kernels and backends register themselves when their library is loaded; no symbol of theirs is referenced.
    options += ["-Wl,--no-as-needed", *(str(lib / name) for name in LIBRARIES), f"-Wl,-rpath,{lib}"]
    parts = (version_line(compiler), executorch_version(), SOURCE.read_text(), *options)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def compile_into(folder: Path) -> None:
        command = [compiler, *options, "-o", str(folder / "runner")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            reason = (errors or done.stderr.splitlines() or ["no reason given"])[0]
            raise DependencyError(f"{compiler} cannot compile {SOURCE.name}: {reason[:300]}")

    return made_once(cache_root() / "arm64" / f"runner-{key}", compile_into) / "runner"
