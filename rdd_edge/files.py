"""Files and folders that are written whole or not at all, and hashes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel

from .errors import CorruptError, StorageError
from .portable.hashes import sha256_of as sha256_of


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError | ChildProcessError):
            raise  # not about a file
        if error.errno == errno.ENOSPC:
            raise StorageError(f"the disk is full: {path} was not written, and the old file is untouched") from None
        in_the_way = next((parent for parent in path.parents if os.path.isfile(parent)), None)
        reason = error.strerror if in_the_way is None else f"{in_the_way} is not a folder"
        raise StorageError(f"cannot write {path}: {reason}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: at any moment `path` is the old file or the whole new one."""
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, renamed to it when the block ends without an error."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp makes the file private; what we deliver is not
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_model(path: Path, model: BaseModel) -> None:
    """Write a record as indented JSON."""
    write_bytes(path, (model.model_dump_json(indent=2) + "\n").encode())


def tree_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`, keyed by the POSIX path relative to it and sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def require_hashes(expected: Mapping[Path, str | None], card: Path) -> None:
    """Raise CorruptError for a file with another SHA-256 than its card gives (None: it gives none), or MissingError."""
    for path, sha256 in expected.items():
        if sha256 is not None and sha256 != sha256_of(path):
            raise CorruptError(f"{path} is not the file that {card} names: truncated or changed, its SHA-256 differs")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files in `folder` of a process that was killed in `new_folder` or `write_bytes`.

    Only for a folder that one process at a time writes to.
    """
    with storage_errors(folder):
        for path in folder.glob(".*.????????"):  # a name, a dot, and tempfile's eight characters
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it when the block ends without an error.

    Whoever may enter the folder around it may read what is in it. A folder at `path` is replaced, so callers that must
    not overwrite check first; a file there is a StorageError.
    """
    if os.path.isfile(path):
        raise StorageError(f"cannot write the folder {path}: it is a file")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield beside
            for made in (beside, *beside.rglob("*")):  # tempfile, safetensors and coremltools make what is private
                if not made.is_symlink():
                    mode = made.stat().st_mode
                    made.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
            old = None
            if path.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                os.replace(path, old / path.name)
            os.replace(beside, path)
            if old is not None:
                shutil.rmtree(old)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
