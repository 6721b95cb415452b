"""JSON Schemas of what crosses a file boundary, for harnesses in other languages; they ship in this folder.

The folder golden holds the documents against which such a harness is run; golden.py makes them.

`python -m rdd_edge.schemas` writes them anew after a change of a model.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from ..benchmarking.record import RunRecord
from ..benchmarking.returned import Failure, SelfTest
from ..bundle import Manifest, Plan
from ..evaluation.scores import Scores

__all__ = ["FOLDER", "SCHEMAS", "schema_text"]

FOLDER = Path(__file__).parent
SCHEMAS: dict[str, type[BaseModel]] = {
    "plan": Plan, "record": RunRecord, "manifest": Manifest, "scores": Scores, "error": Failure, "selftest": SelfTest,
}  # fmt: skip


def schema_text(kind: type[BaseModel]) -> str:
    return json.dumps(kind.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
