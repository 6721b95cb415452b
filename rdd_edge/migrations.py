"""Records and manifests of older schemas, brought up to date one version at a time, each step a named function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["MIGRATIONS", "manifest_1_to_2", "record_1_to_2", "record_2_to_3", "up_to_date"]

Document = dict[str, Any]


def record_1_to_2(old: Document) -> Document:
    """Version 2 added `conditions`: temperature, clock and power around the timed runs."""
    missing = old.get("missing")
    if isinstance(missing, dict):  # anything else is for the validation that follows to refuse
        missing = {**missing, "conditions": "records of version 1 do not hold them"}
    return {**old, "schema_version": 2, "conditions": None, "missing": missing}


def manifest_1_to_2(old: Document) -> Document:
    """Version 2 added the budget of a search to `quantization`."""
    quantization = old.get("quantization")
    if isinstance(quantization, dict):
        quantization = {**quantization, "budget": None}
    return {**old, "schema_version": 2, "quantization": quantization}


def record_2_to_3(old: Document) -> Document:
    """Version 3 added the time of each operator, transfers, the build on the device, its power mode and GPU clocks."""
    added = ("build_ms", "transfers", "power_mode", "clocks_locked", "operators")
    missing, conditions = old.get("missing"), old.get("conditions")
    if isinstance(missing, dict):
        missing = {**missing, **dict.fromkeys(added, "records of version 2 do not hold it")}
    if isinstance(conditions, list) and all(isinstance(condition, dict) for condition in conditions):
        conditions = [{**condition, "gpu_clock_mhz": None, "gpu_load": None} for condition in conditions]
    return {**old, **dict.fromkeys(added), "schema_version": 3, "conditions": conditions, "missing": missing}


MIGRATIONS: dict[str, dict[int, Callable[[Document], Document]]] = {
    "Manifest": {1: manifest_1_to_2},
    "RunRecord": {1: record_1_to_2, 2: record_2_to_3},
}


def up_to_date(kind: str, document: object) -> Document | None:
    """The document in the newest version that migrations of its kind lead to; None where none begins at its own."""
    steps = MIGRATIONS.get(kind, {})
    if not isinstance(document, dict) or not _has_step(steps, document):
        return None
    while _has_step(steps, document):
        document = steps[document["schema_version"]](document)
    return document


def _has_step(steps: dict[int, Callable[[Document], Document]], document: Document) -> bool:
    version = document.get("schema_version")
    return type(version) is int and version in steps
