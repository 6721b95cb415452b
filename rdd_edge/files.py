"""Files written beside and renamed, hashed, and read back with a sentence when they are not what they should be."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import CorruptError, MissingError, StorageError, first_line

__all__ = [
    "first_fault",
    "new_folder",
    "read_json",
    "read_model",
    "remove_leftovers",
    "sha256_of",
    "storage_errors",
    "tree_sha256",
    "write_bytes",
    "write_model",
]

MOST_JSON_BYTES = 1 << 28  # ten million latencies; more is no record of ours
Model = TypeVar("Model", bound=BaseModel)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(f"the disk is full: {path} was not written, and what stood there is untouched") from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR):
            raise StorageError(f"cannot write {path}: {error.strerror}") from None
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that at any moment `path` is the old file or the whole new one."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp makes the file private; what we deliver is not
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_model(path: Path, model: BaseModel) -> None:
    """Write a record as indented JSON, NaN and infinity refused."""
    write_bytes(path, (model.model_dump_json(indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON document of any form. Raises MissingError or CorruptError."""
    try:
        return json.loads(_read_document(path, "JSON document"))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not a valid JSON document: {_json_fault(error)}") from None


def read_model(path: Path, kind: type[Model]) -> Model:
    """Read and validate a record; numbers are not converted to text, nor text to numbers.

    Raises MissingError or CorruptError with the first fault.
    """
    text = _read_document(path, kind.__name__)
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise CorruptError(f"{path} is not a valid {kind.__name__}: {first_fault(error)}") from None
    except RecursionError as error:
        raise CorruptError(f"{path} is not a valid {kind.__name__}: {_json_fault(error)}") from None


def _read_document(path: Path, kind: str) -> bytes:
    if not os.path.isfile(path):  # unlike Path.is_file, it raises nothing for a path that cannot exist
        raise MissingError(f"there is no {path}")
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise CorruptError(f"{path} is not a {kind}: it has {path.stat().st_size} bytes")
        return path.read_bytes()
    except OSError as error:
        raise MissingError(f"cannot read {path}: {error.strerror}") from None


def _json_fault(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)


def first_fault(error: ValidationError) -> str:
    """The first thing that a validation found, in one line whatever keys and values the document holds."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["loc"] == ("schema_version",):
        return "it is of another version of the schema: read it with the rdd-edge that wrote it, or a newer one"
    where = ".".join(str(part) for part in first["loc"])
    text = f"{where}: {first['msg']}" if where else first["msg"]
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`, by its POSIX path relative to it, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def remove_leftovers(folder: Path) -> None:
    """Delete what `new_folder` and `write_bytes` had begun in `folder` when their process was killed.

    Only for a folder that one process at a time writes to.
    """
    for path in folder.glob(".*.????????"):  # a name, a dot, and tempfile's eight characters
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder built beside `path` that takes its place only when the block ends without an error.

    What stood at `path` before is replaced, so callers that must not overwrite check first.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            os.chmod(beside, 0o755)
            yield beside
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
