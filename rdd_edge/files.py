"""Files and folders that are written whole or not at all, hashes, and readers that say what is wrong with a file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import CorruptError, MissingError, RddEdgeError, StorageError, first_line, printable
from .portable.hashes import sha256_of as sha256_of

MOST_JSON_BYTES = 1 << 28  # enough for ten million latencies
Model = TypeVar("Model", bound=BaseModel)


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


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to read `path` into a MissingError."""
    try:
        yield
    except OSError as error:
        raise MissingError(f"cannot read {path}: {error.strerror or first_line(error)}") from None


@contextmanager
def corrupt_errors(problem: str) -> Iterator[None]:
    """Turn any exception of another library into a CorruptError that begins with `problem`.

    Readers of files raise many types for a broken file.
    """
    try:
        yield
    except RddEdgeError:
        raise
    except Exception as error:
        raise CorruptError(f"{problem}: {first_line(error)}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: at any moment `path` is the old file or the whole new one."""
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
    """Write a record as indented JSON."""
    write_bytes(path, (model.model_dump_json(indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON document of any form. Raises MissingError or CorruptError."""
    try:
        return json.loads(_read_document(path, "JSON document"))
    except (ValueError, RecursionError) as error:
        fault = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise CorruptError(f"{path} is not a valid JSON document: {fault}") from None


def read_model(path: Path, kind: type[Model]) -> Model:
    """Read and validate a record; numbers are not converted to text, nor text to numbers.

    Raises MissingError or CorruptError with the first fault.
    """
    text = _read_document(path, kind.__name__)
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise CorruptError(f"{path} is not a valid {kind.__name__}: {first_fault(error)}") from None


def _read_document(path: Path, kind: str) -> bytes:
    if not os.path.isfile(path):  # unlike Path.is_file, it raises nothing for a path that cannot exist
        raise MissingError(f"there is no {path}")
    with reading_errors(path):
        if path.stat().st_size > MOST_JSON_BYTES:
            raise CorruptError(f"{path} is not a {kind}: it has {path.stat().st_size} bytes")
        return path.read_bytes()


def read_weights(path: Path) -> dict[str, Any]:
    """The dictionary in a file of weights: safetensors, or a pickle by torch's restricted unpickler.

    The latter builds tensors and containers alone. Raises CorruptError for any other file.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many types for a broken file
        raise CorruptError(f"{path} is not a file of weights: {first_line(error)[:200]}") from None
    if not isinstance(content, dict):
        raise CorruptError(f"{path} is not a file of weights: it holds a {type(content).__name__}")
    return content


def first_fault(error: ValidationError) -> str:
    """The first error of a validation, in one line whatever keys and values the document has."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["loc"] == ("schema_version",):
        return "it is of another version of the schema: read it with the rdd-edge that wrote it, or a newer one"
    key = ".".join(str(part) for part in first["loc"])
    return printable(f"{key}: {first['msg']}" if key else first["msg"], 300)


def tree_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`, keyed by the POSIX path relative to it and sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


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

    A folder at `path` is replaced, so callers that must not overwrite check first; a file there is a StorageError.
    """
    if os.path.isfile(path):
        raise StorageError(f"cannot write the folder {path}: it is a file")
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
