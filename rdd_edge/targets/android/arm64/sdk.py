"""ExecuTorch's C++ SDK for ARM: the headers and shared libraries in its aarch64 wheel.

The wheel has the version that is installed here, is checked against a pinned SHA-256, and does not need torch. It is
unpacked below arm64/ in the cache folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from ....data.cache import cache_root
from ....errors import CorruptError, DependencyError
from ....files import new_folder, sha256_of, storage_errors
from ....reading.archives import unpack_zip

PLATFORM, PYTHON = "manylinux_2_28_aarch64", "3.11"  # the libraries are the same in the wheel of each Python
WHEEL_SHA256 = {  # by version
    "1.5.1": "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a",
}


def executorch_version() -> str:
    """Version of the installed executorch. Raises DependencyError."""
    try:
        return version("executorch")
    except PackageNotFoundError:
        raise DependencyError("running a .pte file needs executorch: pip install 'rdd-edge[android]'") from None


def native_sdk() -> Path:
    """The SDK in the installed wheel, for this machine: a folder with include/ and lib/. Raises DependencyError."""
    executorch_version()
    spec = find_spec("executorch")
    folders = [Path(name) for name in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / "include").is_dir() and (folder / "lib").is_dir():
            return folder
    raise DependencyError("the installed executorch has no C++ SDK: pip install 'rdd-edge[android]'")


def arm64_sdk() -> Path:
    """The SDK for ARM, downloaded on first use: a folder with include/ and lib/.

    Raises DependencyError where the wheel cannot be downloaded, CorruptError where its hash is not the pinned one.
    """
    installed = executorch_version()
    if installed not in WHEEL_SHA256:
        raise DependencyError(
            f"running an artifact on arm64 needs executorch {' or '.join(WHEEL_SHA256)}, whose aarch64 wheel has a "
            f"pinned hash; {installed} is installed"
        )
    sha256 = WHEEL_SHA256[installed]

    def unpack(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="rdd-edge-") as name:
            wheel = _download(installed, Path(name))
            if sha256_of(wheel) != sha256:
                raise CorruptError(f"{wheel.name} from the package index is not the wheel whose SHA-256 is {sha256}")
            unpack_zip(wheel, folder, ("executorch/include/", "executorch/lib/"))

    return made_once(cache_root() / "arm64" / f"executorch-{installed}-{sha256[:12]}", unpack) / "executorch"


def _download(wanted: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", PLATFORM, "--python-version", PYTHON, "--dest", str(folder), f"executorch=={wanted}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DependencyError(f"pip cannot download the aarch64 wheel of executorch {wanted}: {reason[:300]}")
    return found[0]


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills on first use. Another process that needs it at the same time waits."""
    if not folder.is_dir():
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if not folder.is_dir():
                    with new_folder(folder) as beside:
                        make(beside)
    return folder
