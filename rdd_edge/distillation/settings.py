"""The settings of a preset by their dotted keys: listed with their meanings, set from text, and read from TOML.

A meaning is the comment beside the field in config.py, so that no second list of the settings has to be kept.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from ..errors import CorruptError, UsageError
from ..reading.documents import parse_json
from .config import Preset

PRESET = "preset"  # key of a file of settings that names the preset to start from


@dataclass(frozen=True)
class Setting:
    """A key with its value in a preset; None: off, or chosen automatically."""

    key: str
    value: Any
    meaning: str

    def __str__(self) -> str:
        """A line of TOML, which has no null: a setting that is off is a comment."""
        text = f"# {self.key} =" if self.value is None else f"{self.key} = {json.dumps(self.value)}"
        return f"{text:<44}  # {self.meaning}" if self.meaning else text


def settings(preset: Preset) -> list[Setting]:
    """Every setting of the preset in the order of config.py."""
    return list(_settings(preset.model_dump(mode="json"), Preset, ""))


def _settings(values: Mapping[str, Any], model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        key, value, section = prefix + name, values[name], _section(field.annotation)
        if section and value is not None:
            yield from _settings(value, section, f"{key}.")
        elif isinstance(value, dict):
            yield from (Setting(f"{key}.{inner}", one, _meanings(model)[name]) for inner, one in value.items())
        else:
            yield Setting(key, value, _meanings(model)[name])


def all_keys(model: type[BaseModel] = Preset, prefix: str = "") -> Iterator[str]:
    """Every key that some preset could have."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if section := _section(field.annotation):
            yield from all_keys(section, f"{prefix}{name}.")


def set_text(values: dict[str, Any], setting: str) -> None:
    """Change one value of a dumped preset in place. setting: KEY=VALUE, of JSON, a word, or a list such as 16,32.

    Raises UsageError for an unknown key, with the nearest one.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set {setting}: expected KEY=VALUE with a key of the preset, e.g. teacher.steps=100")
    kinds = _kinds(key)
    value = _parsed(text)
    if "tuple" in kinds and not isinstance(value, list | dict) and value is not None:
        value = [_parsed(word) for word in text.split(",")]
    elif "str" in kinds and not isinstance(value, str) and value is not None:
        value = text
    set_value(values, key, value)


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Change one value of a dumped preset in place. Raises UsageError for an unknown key, with the nearest one."""
    *parents, last = key.split(".")
    entry: Any = values
    for i, parent in enumerate(parents):
        if isinstance(entry, dict) and parent in entry and entry[parent] is None and key in all_keys():
            section = ".".join(parents[: i + 1])
            raise UsageError(f"the setting {key} has no effect: {section} is off; set all of it, e.g. {section}={{…}}")
        entry = entry.get(parent) if isinstance(entry, dict) else None
    name = int(last) if isinstance(entry, dict) and last.isdecimal() and int(last) in entry else last  # of taus.cfd
    if not isinstance(entry, dict) or name not in entry:
        near = difflib.get_close_matches(key, list(all_keys()), 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"{key} is not a key of the preset: {hint}rdd-edge settings lists them")
    entry[name] = value


def example(values: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """ "; for example KEY=VALUE" with the value that a dumped preset has at the place of a fault, or nothing."""
    keys = [str(part) for part in location if not isinstance(part, int)]
    value: Any = values
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None or isinstance(value, Mapping):
        return ""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return f"; for example {'.'.join(keys)}={json.dumps(text) if isinstance(text, bool) else text}"


def set_table(values: dict[str, Any], table: Mapping[str, Any], prefix: str = "") -> None:
    """Change the values that a table of settings has, in place. Raises UsageError for an unknown key."""
    for name, value in table.items():
        key = prefix + name
        present: Any = values
        for part in key.split("."):
            present = present.get(part) if isinstance(present, dict) else None
        if isinstance(value, dict) and present is not None and "section" in _kinds(key):
            set_table(values, value, f"{key}.")
        else:
            set_value(values, key, value)


def _parsed(text: str) -> Any:
    try:
        return parse_json(text.encode(errors="surrogateescape"), text)
    except CorruptError:
        return text


def _section(annotation: Any) -> type[BaseModel] | None:
    """The record that a field holds, or may hold."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _kinds(key: str) -> set[str]:
    """Words for what the setting holds, of tuple, str and section; empty for an unknown key."""
    model: type[BaseModel] | None = Preset
    annotation: Any = None
    for part in key.split("."):
        if model is None or part not in model.model_fields:
            return set()
        annotation = model.model_fields[part].annotation
        model = _section(annotation)
    if model is not None:
        return {"section"}
    text = str(annotation)
    return {word for word in ("tuple", "str") if re.search(rf"\b{word}\b", text)}


@cache
def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """By field, the comment at the end of its line, or else those in the lines above it."""
    found, above = dict[str, str](), list[str]()
    for line in inspect.getsource(model).splitlines():
        field = re.match(r"    (\w+): [^#]*(?:# (.*))?$", line)
        if comment := re.match(r"    # (.*)", line):
            above.append(comment[1])
        elif field or not re.match(r"    \)", line):
            if field:
                found[field[1]] = field[2] or " ".join(above)
            above = []
    return found
