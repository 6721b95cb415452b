"""JSON and TOML documents: UTF-8, bounded in size and depth, without NaN, infinity and duplicate keys."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from ..errors import CorruptError, MissingError, first_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BYTES = 1 << 28  # enough for ten million latencies
MOST_CONTAINERS = 1 << 20  # lists and objects, of which a file of MOST_BYTES could hold a hundred times as many
MOST_VALUES = 12_000_000
MOST_TOML = 1_000_000  # bytes: a person has written it
Model = TypeVar("Model", bound=BaseModel)


def read_content(path: Path, most: int = MOST_BYTES) -> bytes:
    """A file of at most `most` bytes. Raises MissingError, or CorruptError for a larger one."""
    if not os.path.isfile(path):  # unlike Path.is_file, it raises nothing for a path that cannot exist
        raise MissingError(f"there is no {path}")
    try:
        with path.open("rb") as file:
            content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    except OSError as error:
        raise MissingError(f"cannot read {path}: {error.strerror or first_line(error)}") from None
    if len(content) > most:
        raise CorruptError(f"{path} has more than {most} bytes, which no such file needs")
    return content


def parse_json(content: bytes, name: object, kind: str = "JSON document") -> Any:
    """The value of a document of any form.  name, kind: for messages. Raises CorruptError."""
    try:
        if len(content) > MOST_BYTES or content.count(b"[") + content.count(b"{") > MOST_CONTAINERS:
            raise ValueError("it is too large")
        if content.count(b",") > MOST_VALUES:
            raise ValueError("it has too many values")
        from_json(content, allow_inf_nan=False)  # refuses NaN, invalid Unicode and more than 200 levels
        return json.loads(content, object_pairs_hook=_unique, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{name} is not a valid {kind}: {first_line(error)}") from None


def read_json(path: Path) -> Any:
    """A JSON document of any form. Raises MissingError or CorruptError."""
    return parse_json(read_content(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML document of at most MOST_TOML bytes. Raises MissingError or CorruptError."""
    content = read_content(path, MOST_TOML)
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not a TOML file: {first_line(error)[:200]}") from None


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """A JSON document that is an object.  kind: what it is, for the message. Raises MissingError or CorruptError."""
    value = parse_json(read_content(path), path)
    if not isinstance(value, dict):
        raise CorruptError(f"{path} is not {kind}: it is not an object")
    return value


def parse_model(content: bytes, kind: type[Model], name: object) -> Model:
    """Parse and validate a record; numbers are not converted to text, nor text to numbers.  name: for messages.

    Raises CorruptError with the first fault.
    """
    parse_json(content, name, kind.__name__)
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise CorruptError(f"{name} is not a valid {kind.__name__}: {first_fault(error)}") from None


def read_model(path: Path, kind: type[Model]) -> Model:
    """Read and validate a record, as `parse_model` does. Raises MissingError or CorruptError."""
    return parse_model(read_content(path), kind, path)


def first_fault(error: ValidationError) -> str:
    """The first error of a validation, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["loc"] == ("schema_version",):
        return "it is of another version of the schema: read it with the rdd-edge that wrote it, or a newer one"
    key = ".".join(str(part) for part in first["loc"])
    return (f"{key}: {first['msg']}" if key else first["msg"])[:300]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the key {next(name for name in names if names.count(name) > 1)[:80]!r} twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
