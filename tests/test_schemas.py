"""Schemas and golden documents that ship are those of the models; a record of another version is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from records import write_run

from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.errors import CorruptError
from rdd_edge.portable.golden import CHECKS
from rdd_edge.reading.documents import read_model
from rdd_edge.schema import Text
from rdd_edge.schemas import FOLDER, SCHEMAS, schema_text
from rdd_edge.schemas.golden import GOLDEN, golden_text


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_shipped_schema_is_the_models(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == schema_text(SCHEMAS[name]), "run python -m rdd_edge.schemas"


@pytest.mark.parametrize("version", [0, 2, True, "1", 1.0, None])
def test_an_unknown_version_is_refused(tmp_path: Path, version: object) -> None:
    run = write_run(tmp_path / "run")
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**record, "schema_version": version}))
    with pytest.raises(CorruptError, match="another version of the schema"):
        read_bench_run(run)


def golden(name: str) -> Any:
    return json.loads((FOLDER / "golden" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_the_shipped_golden_document_is_what_the_code_makes(name: str) -> None:
    """Normals to the nine digits in which a float32 is written: math libraries differ in the last bits."""
    committed, fresh = golden(name), json.loads(golden_text(name))
    if name == "normals":
        for one, other in zip(committed["cases"], fresh["cases"], strict=True):
            np.testing.assert_allclose(one.pop("z"), other.pop("z"), rtol=0, atol=1e-6)
    assert committed == fresh, "run python -m rdd_edge.schemas"


def test_the_golden_vectors_have_high_indices_and_seeds() -> None:
    for name in ("words", "normals"):
        cases = golden(name)["cases"]
        assert max(int(case["index"]) for case in cases) > 2**32
        assert max(int(case["seed"]) for case in cases) > 2**63
    assert set(CHECKS) < set(GOLDEN)


@pytest.mark.parametrize("name", ["plan", "manifest", "record", "error"])
def test_the_golden_documents_are_accepted_or_refused_as_they_say(tmp_path: Path, name: str) -> None:
    path, documents = tmp_path / "document.json", golden(name)
    for document in documents["accepted"]:
        path.write_text(json.dumps(document))
        read_model(path, SCHEMAS[name])
    for case in documents["refused"]:
        document = json.loads(json.dumps(documents["accepted"][0]))
        *keys, last = case["at"]
        place = document
        for key in keys:
            place = place[int(key) if isinstance(place, list) else key]
        place[last] = "MARK"
        path.write_text(json.dumps(document).replace('"MARK"', case["json"]))
        try:
            read_model(path, SCHEMAS[name])
        except CorruptError:
            continue
        pytest.fail(f"{case} was accepted")


def test_the_golden_texts_are_allowed_or_not_as_they_say() -> None:
    text = TypeAdapter(Text)
    for case in golden("text")["cases"]:
        try:
            allowed = text.validate_python(case["text"]) == case["text"]
        except ValidationError:
            allowed = False
        assert allowed == case["allowed"], case
