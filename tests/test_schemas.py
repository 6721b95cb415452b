"""Schemas that ship are those of the models; records of older versions are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from records import write_run

from rdd_edge.errors import CorruptError
from rdd_edge.migrations import record_1_to_2, record_2_to_3
from rdd_edge.runs import read_run
from rdd_edge.schemas import FOLDER, SCHEMAS, schema_text


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_shipped_schema_is_the_models(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == schema_text(SCHEMAS[name]), "run python -m rdd_edge.schemas"


ADDED_IN_3 = ("build_ms", "transfers", "power_mode", "clocks_locked", "operators")


def as_version_2(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "record.json").read_text())
    for name in ADDED_IN_3:
        del record[name]
    for condition in record["conditions"]:
        del condition["gpu_clock_mhz"], condition["gpu_load"]
    record["schema_version"] = 2
    (folder / "record.json").write_text(json.dumps(record))
    return record


def as_version_1(folder: Path) -> dict[str, Any]:
    record = as_version_2(folder)
    del record["conditions"]
    record["schema_version"] = 1
    (folder / "record.json").write_text(json.dumps(record))
    return record


def test_a_record_of_version_2_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    new = read_run(run).record
    as_version_2(run)
    old = read_run(run).record
    assert old.missing == dict.fromkeys(ADDED_IN_3, "records of version 2 do not hold it")
    assert old.conditions is not None
    assert (old.conditions[0].power_w, old.conditions[0].gpu_load) == (5.0, None)
    restored = {name: getattr(new, name) for name in (*ADDED_IN_3, "conditions", "missing")}
    assert old.model_copy(update=restored) == new


def test_a_record_of_version_1_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    new = read_run(run).record
    as_version_1(run)
    old = read_run(run).record
    assert old.conditions is None
    assert old.missing["conditions"] == "records of version 1 do not hold them"
    restored = {name: getattr(new, name) for name in (*ADDED_IN_3, "conditions", "missing")}
    assert old.model_copy(update=restored) == new


def test_a_broken_record_of_version_1_is_still_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    record = as_version_1(run)
    for name, value in (("load_ms", float("nan")), ("where", "moon"), ("missing", 3), ("extra", 1)):
        (run / "record.json").write_text(json.dumps({**record, name: value}))
        with pytest.raises(CorruptError, match="not a valid RunRecord"):
            read_run(run)


@pytest.mark.parametrize("version", [0, 4, True, "1", 1.0, None])
def test_an_unknown_version_is_refused(tmp_path: Path, version: object) -> None:
    run = write_run(tmp_path / "run")
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**record, "schema_version": version}))
    with pytest.raises(CorruptError, match="another version of the schema"):
        read_run(run)


def test_a_migration_changes_a_copy() -> None:
    old = {"schema_version": 1, "missing": {"samples": "none"}}
    assert record_1_to_2(old)["missing"] == {"samples": "none", "conditions": "records of version 1 do not hold them"}
    assert old == {"schema_version": 1, "missing": {"samples": "none"}}
    conditions = [{"when": "after"}, 3]  # not a list of objects: for the validation that follows to refuse
    assert record_2_to_3({"schema_version": 2, "conditions": conditions})["conditions"] == conditions
    assert conditions == [{"when": "after"}, 3]
