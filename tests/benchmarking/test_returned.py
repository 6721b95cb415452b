"""The one check of what any device sends back: each field of a record that contradicts the bundle or plan is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.returned import SelfTest, check_files, check_run, receive_folder
from rdd_edge.bundle import Plan, read_bundle
from rdd_edge.errors import CorruptError
from rdd_edge.files import write_model

TEST = SelfTest(
    schema_version=1, noise_max_difference=0.0, psnr_db=90.0, worst_psnr_db=80.0, threshold_db=None, samples=4
)
PARTS = ("to_device_ms", "compute_ms", "from_device_ms")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "jetson"}, "a record whose target is not that of"),
        ({"precision": "int8"}, "a record whose precision"),
        ({"checkpoint_sha256": "1" * 64}, "a record whose checkpoint_sha256"),
        ({"where": "host"}, "a record whose where"),
        ({"batch": 2}, "a record whose batch"),
        ({"threads": 7}, "a record whose threads"),
        ({"artifact_bytes": 1}, "a record whose artifact_bytes"),
        ({"latency_ms": [1.0]}, "a record whose latency_ms"),
        ({"bundle_sha256": "1" * 64}, "the run of another bundle or plan"),
        ({"samples": None}, "is not valid: .*gives no reason"),
        ({"device": {"name": "\x1b[2J"}}, "is not valid: "),
        ({"transfers": {key: [0.1] for key in PARTS}}, "is not valid: .*transfers: expected 5 of each part"),
        ({"warnings": ["\x1b[2J"]}, "is not valid: .*warnings.0"),
    ],
)
def test_what_contradicts_the_bundle_or_the_plan_is_named(
    tmp_path: Path, make_bundle: Callable[..., Path], change: dict[str, Any], says: str
) -> None:
    bundle = read_bundle(make_bundle())
    plan: Plan = bundle.manifest.default_plan
    bench(bundle.folder, "host", tmp_path / "run")
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text()) | {"where": "device"}
    path.write_text(json.dumps(record))
    with pytest.raises(CorruptError, match=r"from the phone is not valid: there is no selftest\.json"):
        check_run(tmp_path / "run", bundle, plan, "the phone")
    write_model(tmp_path / "run" / "selftest.json", TEST)
    found, test = check_run(tmp_path / "run", bundle, plan, "the phone")
    assert (found.where, test) == ("device", TEST)
    path.write_text(json.dumps(record | change))
    with pytest.raises(CorruptError, match=says) as error:
        check_run(tmp_path / "run", bundle, plan, "the phone")
    assert "the phone" in str(error.value)
    assert str(error.value).isprintable()
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.symlink_to("plan.json"), lambda path: path.write_bytes(b"12345")]
)
def test_a_folder_holds_files_of_a_run_alone(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "plan.json").write_bytes(b"1234")
    most = {"plan.json": 4, "record.json": 4}
    assert check_files(tmp_path, most, "phone") == ["plan.json"]
    make(tmp_path / "record.json")
    with pytest.raises(CorruptError, match=r"phone sent back '?record\.json'?.* (benchmark run|5 bytes)"):
        check_files(tmp_path, most, "phone")


def test_a_run_in_a_folder_is_received_whole(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    folder, out = make_bundle(), tmp_path / "out"
    record = bench(folder, "host", tmp_path / "run")
    write_model(tmp_path / "run" / "selftest.json", TEST)
    bundle = read_bundle(folder)
    with pytest.raises(CorruptError, match="a record whose where"):  # it ran here
        receive_folder(tmp_path / "run", out, bundle, bundle.manifest.default_plan, "phone")
    assert not out.exists()
    path = tmp_path / "run" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"where": "device"}))
    received, test = receive_folder(tmp_path / "run", out, bundle, bundle.manifest.default_plan, "phone")
    assert (received.latency_ms, test) == (record.latency_ms, TEST)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "run").iterdir())
