"""JSON Schemas of what crosses a file boundary, for harnesses in other languages; they ship in schema_files/.

`python -m rdd_edge.schemas` writes them anew after a change of a model.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from .bundle import Manifest
from .files import write_bytes
from .results import Plan, RunRecord
from .scores import Scores

__all__ = ["FOLDER", "SCHEMAS", "schema_text"]

FOLDER = Path(__file__).parent / "schema_files"
SCHEMAS: dict[str, type[BaseModel]] = {
    "plan": Plan, "record": RunRecord, "manifest": Manifest, "scores": Scores,
}  # fmt: skip


def schema_text(kind: type[BaseModel]) -> str:
    return json.dumps(kind.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, kind in SCHEMAS.items():
        write_bytes(FOLDER / f"{name}.json", schema_text(kind).encode())
