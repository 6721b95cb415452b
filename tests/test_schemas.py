"""Schemas that ship are those of the models; a record of another version is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from records import write_run

from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.errors import CorruptError
from rdd_edge.schemas import FOLDER, SCHEMAS, schema_text


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
