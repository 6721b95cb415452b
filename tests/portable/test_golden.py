"""A machine's noise, labels and rounding against the golden vectors; a planted change of each is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rdd_edge
from rdd_edge.errors import ArtifactError, CorruptError
from rdd_edge.portable.golden import CHECKS, check_golden

GOLDEN = Path(rdd_edge.__file__).parent / "schemas" / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in CHECKS:
        shutil.copy(GOLDEN / f"{name}.json", tmp_path)
    return tmp_path


def test_this_machine_agrees(folder: Path) -> None:
    check_golden(folder)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("words", "words", [1, 2, 3, 4]), ("normals", "z", [9.5]), ("labels", "label", 7), ("rounding", "pixel", 300)],
)
def test_another_value_is_named(folder: Path, kind: str, field: str, value: Any) -> None:
    document = json.loads((folder / f"{kind}.json").read_text())
    document["cases"][5][field] = value
    (folder / f"{kind}.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=f"this machine computes other {kind}, case 5"):
        check_golden(folder)


@pytest.mark.parametrize("content", ["", "{}", '{"cases": [1]}', '{"cases": [{"seed": "0"}]}'])
def test_a_damaged_document_is_a_sentence(folder: Path, content: str) -> None:
    (folder / "words.json").write_text(content)
    with pytest.raises(CorruptError, match=r"words\.json does not hold golden vectors"):
        check_golden(folder)


def test_a_missing_document_is_a_sentence(folder: Path) -> None:
    (folder / "rounding.json").unlink()
    with pytest.raises(CorruptError, match=r"rounding\.json does not hold golden vectors"):
        check_golden(folder)
