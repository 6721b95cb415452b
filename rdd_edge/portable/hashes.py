"""SHA-256 of files, and a bundle's files against those that its manifest lists.

Only the standard library, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..errors import CorruptError, MissingError, first_line

# macOS, Windows and Python leave these in a folder that they open.
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
SYSTEM_PREFIX, BYTECODE = "._", "__pycache__"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises MissingError for a file that cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise MissingError(f"cannot read {path}: {error.strerror or first_line(error)}") from None
    return digest.hexdigest()


def is_system_file(name: str) -> bool:
    """Whether a relative POSIX path is a file that a system or Python leaves behind, which is no part of a bundle."""
    path = PurePosixPath(name)
    return path.name in SYSTEM_FILES or path.name.startswith(SYSTEM_PREFIX) or BYTECODE in path.parts


def check_files(folder: Path, hashes: Mapping[str, str], manifest: str) -> None:
    """Raise CorruptError, which names the file, unless the folder holds the files of `hashes` and the manifest alone.

    hashes: SHA-256 by relative POSIX path.  Files of the system beside them are ignored; a symbolic link is refused.
    """
    paths = sorted(folder.rglob("*"))
    if link := next((path for path in paths if path.is_symlink()), None):
        raise CorruptError(f"{link} is a symbolic link, which a bundle must not contain")
    present = {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    for name, expected in hashes.items():
        if name not in present:
            raise CorruptError(f"{folder / name} is missing from the bundle")
        if sha256_of(folder / name) != expected:
            raise CorruptError(f"{folder / name} is not the file its manifest names: its SHA-256 differs")
    foreign = sorted(name for name in present - {*hashes, manifest} if not is_system_file(name))
    if foreign:
        raise CorruptError(f"{folder / foreign[0]} is foreign: the bundle's manifest does not list it; remove the file")
