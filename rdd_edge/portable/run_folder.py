"""Which folder a benchmark run may replace.

Only the standard library, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UsageError

RECORD = "record.json"
FILES = frozenset({RECORD, "plan.json", "samples.u8", "samples.f32", "selftest.json", "scores.json"})
KEYS = frozenset({"schema_version", "target", "checkpoint_sha256", "latency_ms"})  # of a record, among others


def check_out(out: Path) -> None:
    """Raise UsageError unless the path is free, an empty folder, or a benchmark run and nothing else."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if not out.is_dir() or (names and not _is_record(out / RECORD)):
        raise UsageError(f"{out} exists and is not a benchmark run: choose another --out")
    if foreign := sorted(names - FILES):
        raise UsageError(f"{out} holds {foreign[0]!r}, which is not part of a benchmark run: choose another --out")


def _is_record(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.keys() >= KEYS
