"""Benchmark runs over devicectl: a simulated Mac and iPhone, with the harness app in Python, or in Swift where built.

RDD_EDGE_IOS_HARNESS is the command line of the harness in Swift; tests of what only the one in Python does skip then.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_fake_bundle
from devices import WhileTimed, tanh, wait_for
from ios_device import FAKES, OTHER, SWIFT, UDID, Mac, SimulatedIphone
from records import REAL, Means
from tiny import Recorder

from rdd_edge.benchmarking import devicectl, ios, iphone
from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.devicectl import list_ios_devices, udid_of
from rdd_edge.benchmarking.devices import list_devices
from rdd_edge.benchmarking.iphone import Iphone
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.console import reporting_to
from rdd_edge.errors import (
    ArtifactError,
    CorruptError,
    DataError,
    DependencyError,
    DeviceError,
    RddEdgeError,
    StorageError,
    ThresholdError,
    UsageError,
)
from rdd_edge.exporting.harness import add_harness
from rdd_edge.portable import noise

PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0),
    accuracy=AccuracyPlan(samples=20, seed=3, floats=4),
    threads=1,
)
LONG = PLAN.changed(seconds=60)
in_python = pytest.mark.skipif(bool(SWIFT), reason="only the app in Python does this")
write_bundle = partial(write_fake_bundle, target="ios", backend="coreml")


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    mac = Mac(tmp_path / "a mac's")
    monkeypatch.setenv("PATH", f"{mac.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(ios, "POLL_SECONDS", 0.3)
    monkeypatch.setattr(devicectl, "POLL_SECONDS", 0.1)
    return mac


@pytest.fixture
def phone(mac: Mac) -> Iterator[SimulatedIphone]:
    phone = SimulatedIphone(mac)
    yield phone
    phone.close()


def sentence(error: pytest.ExceptionInfo[RddEdgeError]) -> str:
    """The message, which has to be one printable line that names the phone."""
    text = str(error.value)
    assert text.isprintable() and UDID in text, text
    return text


def refused(tmp_path: Path, kind: type[RddEdgeError], says: str) -> None:
    """A run of a new bundle has to end with this sentence."""
    with pytest.raises(kind, match=says) as error:
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    sentence(error)


# ---- whole runs ----


def test_a_bundle_goes_there_and_its_run_comes_back(tmp_path: Path, mac: Mac, phone: SimulatedIphone) -> None:
    bundle, recorder = write_bundle(tmp_path, channels=3, name="a b'; touch $(pwd)"), Recorder()
    own = phone.documents / "bundles" / "a person's" / "manifest.json"
    own.parent.mkdir(parents=True)
    own.write_text("kept")
    with reporting_to(recorder):
        record = bench(bundle, "ios://", tmp_path / "run", PLAN)
    run = read_bench_run(tmp_path / "run")
    assert (run.record, run.plan) == (record, PLAN)
    assert (record.where, record.target, record.threads) == ("device", "ios", None)
    x = tanh(range(20), (3, 8, 8), 3, None)
    assert (tmp_path / "run/samples.u8").read_bytes() == noise.to_uint8(x).tobytes()
    stages = [stage for stage, _ in recorder.stages]
    assert stages[:2] == ["copy", "start"]
    assert {"check", "verify", "build", "load", "time", "samples"} <= set(stages)
    assert [note for note in recorder.notes if "dB from the student on the device" in note]
    assert phone.app_pid() is None
    assert "terminate" not in [command[3] for command in mac.commands if len(command) > 3]  # the interrupt was enough
    assert own.read_text() == "kept"
    (launch,) = [command for command in mac.commands if command[1:4] == ["device", "process", "launch"]]
    arguments = launch[launch.index("--") + 2 :]
    assert arguments[arguments.index("--min-psnr-db") + 1] == "80"
    assert arguments[arguments.index("--bundle-sha256") + 1] == record.bundle_sha256
    for identifier in (UDID, UDID.lower(), phone.state["identifier"]):
        bench(bundle, f"ios://{identifier}", tmp_path / "run", PLAN)


@in_python
def test_the_app_removes_what_earlier_runs_left(tmp_path: Path, phone: SimulatedIphone) -> None:
    for name in ("one", "another"):
        bench(write_bundle(tmp_path, name, name=name), "ios://", tmp_path / "run", PLAN)
        assert phone.left() == ["bundle", "plan.json", "run"]


def test_a_folder_may_be_copied_with_its_name(tmp_path: Path, phone: SimulatedIphone) -> None:
    phone.set(nested=True)
    record = bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    assert read_bench_run(tmp_path / "run").record == record


def test_a_conditional_bundle_without_floats(tmp_path: Path, phone: SimulatedIphone) -> None:
    if SWIFT:
        pytest.skip("its runtime adds the label, which the fake bundle's student does not")
    plan = PLAN.model_copy(update={"accuracy": AccuracyPlan(samples=3, seed=0, floats=0)})
    bench(write_bundle(tmp_path, classes=4), "ios://", tmp_path / "run", plan)
    assert not (tmp_path / "run" / "samples.f32").exists()


@pytest.mark.skipif(not SWIFT, reason="needs the harness in Swift: RDD_EDGE_IOS_HARNESS")
@pytest.mark.parametrize(("precision", "checkpoint"), [("fp16", "tiny"), ("fp32", "tiny_conditional")])
def test_its_images_are_those_of_the_host(
    tmp_path: Path, phone: SimulatedIphone, precision: str, checkpoint: str, request: pytest.FixtureRequest
) -> None:
    """A package, which is a folder; the evaluator of packages stands for Core ML behind the app's core in Swift."""
    from rdd_edge.evaluation.scores import score
    from rdd_edge.exporting.pipeline import export_bundles

    pytest.importorskip("coremltools")
    student = request.getfixturevalue(f"{checkpoint}_checkpoint")
    (bundle,) = export_bundles(student, ("ios",), precision, tmp_path / "bundles")
    phone.set(environment={"HARNESS_CHILD": shlex.join([sys.executable, str(FAKES.parents[1] / "child.py"), "ios"])})
    record = bench(bundle.folder, "ios://", tmp_path / "run", PLAN)
    bench(bundle.folder, "host", tmp_path / "host", PLAN)
    # Not bit for bit: the evaluator takes all samples at once on the host, and PyTorch then adds in another order.
    here, there = (read_bench_run(tmp_path / name).floats() for name in ("host", "run"))
    np.testing.assert_allclose(there, here, rtol=0, atol=0.01 if precision == "fp16" else 1e-4)
    bench(student, "server", tmp_path / "server", PLAN)
    psnr = score(tmp_path / "run", tmp_path / "server", REAL, Means()).psnr_float
    assert psnr is not None and psnr.median_db > 35
    assert (record.precision, record.where) == (precision, "device")


# ---- faults of the app ----


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("swap", ThresholdError, "dB from the student on this device, and 80.0 dB are required"),
        ("throw", ArtifactError, "model.fake"),
        ("hang", ArtifactError, r"no progress for 1(\.0)? s in stage \w+"),
        ("crash", ArtifactError, r"the harness app on .* ended in stage \w+: .*signal 6"),
    ],
)
def test_a_fault_of_the_model_is_named(
    tmp_path: Path,
    phone: SimulatedIphone,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: type[RddEdgeError],
    says: str,
) -> None:
    monkeypatch.setattr(ios, "STALL_SECONDS", 1.0)
    phone.set(environment={"HARNESS_FAULT": fault})
    with pytest.raises(kind, match=says) as error:
        bench(write_bundle(tmp_path, channels=3), "ios://", tmp_path / "run", PLAN)
    if fault == "crash" and not SWIFT:
        assert "Fatal error: ?[2Jindex out of range" in str(error.value)
    sentence(error)
    assert (phone.app_pid(), (tmp_path / "run").exists()) == (None, False)


def test_an_app_that_the_system_ends_is_named(tmp_path: Path, phone: SimulatedIphone) -> None:
    with reporting_to(WhileTimed(phone.kill_app)), pytest.raises(ArtifactError, match="ended in stage time") as error:
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", LONG)
    assert "signal 9" in sentence(error)


@pytest.mark.parametrize("code", [0, 1])
def test_an_app_that_prints_nothing_of_ours(tmp_path: Path, mac: Mac, phone: SimulatedIphone, code: int) -> None:
    mac.set_app(f"sh -c 'yes dyld: Library not loaded | head -n 9; printf %s \"$1\"; exit {code}' app")
    with pytest.raises(ArtifactError, match=r"ended in stage start: .*dyld: Library not loaded; --bundle") as error:
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    assert len(sentence(error)) < 400


def test_a_console_that_floods_is_survived(tmp_path: Path, mac: Mac, phone: SimulatedIphone) -> None:
    mac.set_app("sh -c 'head -c 20000000 /dev/zero; echo; echo rdd-edge: error DataError over; exec sleep 60' app")
    refused(tmp_path, DataError, "over")


def test_a_silent_app_is_given_up(
    tmp_path: Path, mac: Mac, phone: SimulatedIphone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose own watch does not work."""
    monkeypatch.setattr(ios, "STALL_SECONDS", -59.0)
    mac.set_app("sh -c 'echo rdd-edge: load 0; exec sleep 60' app")
    with pytest.raises(ArtifactError, match=r"made no progress for .* in stage load"):
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    assert phone.app_pid() is None


def test_an_app_that_outlives_the_interrupt_is_terminated(
    tmp_path: Path, mac: Mac, phone: SimulatedIphone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iphone, "END_SECONDS", 0.5)
    phone.set(deaf=True)
    bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    assert phone.app_pid() is None
    (command,) = [command for command in mac.commands if command[1:4] == ["device", "process", "terminate"]]
    assert "--kill" in command


def test_an_interrupt_stops_the_app(tmp_path: Path, phone: SimulatedIphone) -> None:
    command = [sys.executable, "-m", "rdd_edge", "bench", str(write_bundle(tmp_path)), "--device", "ios://"]
    command += ["--out", str(tmp_path / "run"), "--seconds", "60", "--n", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(phone.app_pid)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in stderr) == (130, False), stderr
    assert (phone.app_pid(), (tmp_path / "run").exists()) == (None, False)


# ---- what comes back is not believed ----

LIES = {
    "'note.txt', which is not part of a benchmark run": "(out / 'note.txt').write_text('x')",
    "'more', which is not part": "(out / 'more').mkdir()",
    "'samples.u8', which is not part": "(out / 'samples.u8').unlink(); (out / 'samples.u8').symlink_to('/etc/passwd')",
    "sent back selftest.json with 5000 bytes; the plan allows 4096": "(out / 'selftest.json').write_bytes(bytes(5000))",
    "is not valid: .*record.json": "(out / 'record.json').write_text('{')",
    "bundle or plan": "(p := out / 'plan.json').write_text(p.read_text().replace('\"runs\": 5', '\"runs\": 4'))",
    "error.json of .* is not valid": "(out / 'error.json').write_text('{\"kind\": 1}')",
    "sent back more than the [0-9]+ bytes": "(out / 'x').open('wb').truncate(2**32)",
}


@in_python
@pytest.mark.parametrize("says", LIES)
def test_a_lie_is_refused(tmp_path: Path, phone: SimulatedIphone, says: str) -> None:
    bundle = write_bundle(tmp_path)
    record = bench(bundle, "ios://", tmp_path / "run", PLAN)
    phone.set(environment={"HARNESS_ACTION": LIES[says]})
    with pytest.raises(CorruptError, match=says) as error:
        bench(bundle, "ios://", tmp_path / "run", PLAN)
    sentence(error)
    assert read_bench_run(tmp_path / "run").record == record


@in_python
def test_the_run_of_another_bundle_is_refused(tmp_path: Path, phone: SimulatedIphone) -> None:
    bench(write_bundle(tmp_path, "another", name="other"), "ios://", tmp_path / "foreign", PLAN)
    action = f"import shutil; shutil.rmtree(out); shutil.copytree({str(tmp_path / 'foreign')!r}, out)"
    phone.set(environment={"HARNESS_ACTION": action})
    with pytest.raises(CorruptError, match="sent back the run of another bundle or plan"):
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)


@in_python
def test_an_error_that_the_app_left_is_raised(tmp_path: Path, phone: SimulatedIphone) -> None:
    document = {"schema_version": 1, "kind": "StorageError", "sentence": "the disk is full"}
    action = (
        f"import shutil; shutil.rmtree(out); out.mkdir(); (out / 'error.json').write_text({json.dumps(document)!r})"
    )
    phone.set(environment={"HARNESS_ACTION": action})
    refused(tmp_path, StorageError, "the disk is full")


def test_a_run_without_end_is_cut_off(tmp_path: Path, phone: SimulatedIphone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ios, "most_bytes", lambda *_: {"samples.u8": 1 << 20})
    phone.set(huge=True)
    start = time.monotonic()
    with pytest.raises(CorruptError, match=r"sent back more than the [0-9]+ bytes") as error:
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    assert time.monotonic() - start < 20  # while it was copied
    sentence(error)


@in_python
def test_a_run_that_is_not_there(tmp_path: Path, phone: SimulatedIphone) -> None:
    phone.set(environment={"HARNESS_ACTION": "import shutil; shutil.rmtree(out)"})
    with pytest.raises(DeviceError, match="Failed to retrieve the file node for Documents/driver/run-"):
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)


def test_a_failure_that_only_the_console_tells(tmp_path: Path, mac: Mac, phone: SimulatedIphone) -> None:
    mac.set_app("sh -c 'echo rdd-edge: error StorageError cannot write; exec sleep 60' app")
    refused(tmp_path, StorageError, "cannot write")


# ---- the phone and the Mac ----


def test_a_cable_that_is_cut_leaves_the_old_run(tmp_path: Path, phone: SimulatedIphone) -> None:
    bundle = write_bundle(tmp_path)
    record = bench(bundle, "ios://", tmp_path / "run", PLAN)
    with reporting_to(WhileTimed(phone.unplug)), pytest.raises(DeviceError, match="was disconnected") as error:
        bench(bundle, "ios://", tmp_path / "run", LONG)
    assert "stage time" in sentence(error)
    assert read_bench_run(tmp_path / "run").record == record


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (
            'The request was denied by service delegate (SBMainWorkspace) for reason: Locked ("Unable to launch '
            'org.rddedge.harness because the device was not, or could not be, unlocked").',
            "it is locked: unlock it",
        ),
        (
            "Unable to launch org.rddedge.harness because it has an invalid code signature, inadequate entitlements or "
            "its profile has not been explicitly trusted by the user.",
            "it does not trust the app: allow its developer",
        ),
        (
            "Something \x1b[2Jelse.",
            r"The application failed to launch \(.* 10002\); Something \?\[2Jelse \(FBSOpen.* 7\)",
        ),
    ],
)
def test_why_an_app_cannot_be_started(tmp_path: Path, phone: SimulatedIphone, reason: str, says: str) -> None:
    phone.set(launch_error=reason)
    refused(tmp_path, DeviceError, says)


def test_a_phone_that_is_full_is_a_sentence(tmp_path: Path, phone: SimulatedIphone) -> None:
    phone.set(free_bytes=100)
    refused(tmp_path, StorageError, "has no space left")


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("", "is not installed on .*: copy its project with `rdd-edge harness ios"),
        ("0.9", "has version 0.9 of the harness app, not 1:"),
    ],
)
def test_the_app_has_to_be_there(tmp_path: Path, phone: SimulatedIphone, version: str, says: str) -> None:
    phone.set(version=version)
    refused(tmp_path, DeviceError, says)


def test_the_app_may_have_the_identifier_of_another_team(tmp_path: Path, phone: SimulatedIphone) -> None:
    bundle = write_bundle(tmp_path)
    phone.set(app="com.example.jo.rddedge.harness")
    assert bench(bundle, "ios://", tmp_path / "run", PLAN).where == "device"
    phone.set(more_apps=["org.rddedge.harness"])
    with pytest.raises(UsageError, match=r"delete all but one of com\.example\.jo\.rddedge\.harness, org\.") as error:
        bench(bundle, "ios://", tmp_path / "run", PLAN)
    sentence(error)
    phone.set(app="org.example.rddedge", more_apps=["rddedge.harness", "org.notrddedge.harness"])
    with pytest.raises(DeviceError, match="is not installed"):
        bench(bundle, "ios://", tmp_path / "run", PLAN)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"pairing": "unpaired"}, "is not paired: unlock it, connect it"),
        ({"tunnel": "unavailable"}, "is not available: unlock it"),
        ({"developer_mode": "disabled"}, "is not ready: developer mode is off: turn it on"),
    ],
)
def test_a_phone_that_is_not_ready_is_a_sentence(
    tmp_path: Path, mac: Mac, phone: SimulatedIphone, state: dict[str, Any], says: str
) -> None:
    phone.set(**state)
    refused(tmp_path, DeviceError, says)
    SimulatedIphone(mac, OTHER, "the other")
    assert Iphone(None).udid == OTHER  # one that cannot be used is in nobody's way


def test_one_of_several_has_to_be_named(mac: Mac, phone: SimulatedIphone) -> None:
    SimulatedIphone(mac, OTHER, "the other")
    with pytest.raises(UsageError, match=rf"several devices: choose one .*ios://{OTHER} \(the other\)"):
        Iphone(None)
    assert Iphone(OTHER).name == "the other"
    with pytest.raises(DeviceError, match=f"lists no device {UDID[:-1]}A: there is .*ios://{UDID}"):
        Iphone(f"{UDID[:-1]}A")


def test_devices_are_listed_with_what_to_do(mac: Mac) -> None:
    assert dict(list_devices())["ios://"] == devicectl.NO_DEVICE
    with pytest.raises(DeviceError, match="lists no iPhone or iPad: connect one"):
        Iphone(None)
    SimulatedIphone(mac, UDID, "ready\x1b[2J")
    SimulatedIphone(mac, OTHER, "locked away").set(tunnel="unavailable")
    SimulatedIphone(mac, "0" * 25).set(reality="simulated")
    SimulatedIphone(mac, "1" * 25).set(platform="watchOS")
    rows = {name: detail for name, detail in list_devices() if name.startswith("ios://")}
    assert rows == {
        f"ios://{UDID}": "ready?[2J: iPhone 15 Pro, iOS 18.1",
        f"ios://{OTHER}": f"locked away: {devicectl.AWAY}",
    }


@pytest.mark.parametrize("subcommand", ["list.devices", "device.info.apps", "device.copy.to", "device.copy.from"])
@pytest.mark.parametrize("content", [b"", b"\x1b[2J{", b"[1]", b'{"result": 1}', b"[" * 5000, b'{"a": NaN}'])
def test_an_answer_of_another_form_is_a_sentence(
    tmp_path: Path, mac: Mac, phone: SimulatedIphone, subcommand: str, content: bytes
) -> None:
    mac.answer(subcommand, content)
    with pytest.raises((CorruptError, DeviceError), match="devicectl") as error:
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)
    assert str(error.value).isprintable() and "/tmp" not in str(error.value)


@pytest.mark.parametrize(("subcommand", "key"), [("list.devices", "devices"), ("device.info.apps", "apps")])
def test_a_list_that_is_none_is_a_sentence(
    tmp_path: Path, mac: Mac, phone: SimulatedIphone, subcommand: str, key: str
) -> None:
    mac.answer(subcommand, json.dumps({"info": {"outcome": "success"}, "result": {key: {}}}).encode())
    with pytest.raises(CorruptError, match=f"devicectl's list of {key} has another form"):
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run", PLAN)


def test_entries_of_another_form_are_left_out(mac: Mac, phone: SimulatedIphone) -> None:
    entries: list[Any] = [
        None,
        1,
        {},
        {"hardwareProperties": []},
        {"hardwareProperties": {"platform": "iOS", "udid": "-x"}},
    ]
    mac.answer("list.devices", json.dumps({"info": {"outcome": "success"}, "result": {"devices": entries}}).encode())
    assert list_ios_devices() == []


def test_an_answer_that_is_too_large(mac: Mac, phone: SimulatedIphone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devicectl, "MOST_JSON_BYTES", 100)
    with pytest.raises(CorruptError, match="has more than 100 bytes"):
        list_ios_devices()


# ---- devicectl itself ----


def write_xcrun(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "xcrun").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin; {script}\n")
    (folder / "xcrun").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_xcode_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="ios:// devices need a Mac with Xcode 16 or newer"):
        bench(write_bundle(tmp_path), "ios://", tmp_path / "run")
    assert "Xcode 16 or newer" in dict(list_devices())["ios://"]
    for told in ('xcrun: error: unable to find utility "devicectl"', "Error: Unknown option '--console'"):
        write_xcrun(tmp_path, monkeypatch, f"cat >&2 <<'EOF'\n{told}\nEOF\nexit 72")
        with pytest.raises(DependencyError, match="Xcode 16 or newer"):
            list_ios_devices()


def test_a_devicectl_that_hangs_or_floods_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devicectl, "POLL_SECONDS", 0.1)
    monkeypatch.setitem(devicectl.run_devicectl.__kwdefaults__, "wait", 0.5)
    write_xcrun(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(DeviceError, match=r"devicectl list devices did not end within 0\.5 s"):
        list_ios_devices()
    write_xcrun(tmp_path, monkeypatch, "exec yes")
    with pytest.raises(CorruptError, match="devicectl list devices printed more than"):
        list_ios_devices()


@pytest.mark.parametrize(
    "script", ["echo 'ERROR: no \033[2J tunnel. (X error 4.)' >&2; echo more >&2; exit 1", "exit 3", "echo; exit 1"]
)
def test_a_failure_without_json_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    write_xcrun(tmp_path, monkeypatch, script)
    with pytest.raises(DeviceError, match=r"ERROR: no \?\[2J tunnel\.|devicectl ended with exit code"):
        list_ios_devices()


def test_errors_beneath_errors_end(mac: Mac, phone: SimulatedIphone) -> None:
    error: dict[str, Any] = {"code": 1, "domain": "deepest", "userInfo": {}}
    for code in range(30):
        error = {"code": code, "domain": "d", "userInfo": {"NSUnderlyingError": {"error": error}}}
    answer = {"info": {"outcome": "failed"}, "error": error}
    assert devicectl._reason(answer).count("(d ") == 8
    mac.answer("device.info.apps", json.dumps(answer).encode())
    with pytest.raises(DeviceError, match=r"error \(d 29\)"):
        Iphone(None).installed_version()


@pytest.mark.parametrize(
    "url",
    [
        "ios://-s",
        "ios://a b",
        "ios://$(id)",
        f"ios://{UDID}/b",
        f"ios://{UDID}\n",
        "ios:// ",
        "ios://" + "a" * 200,
        "ios://12",
    ],
)
def test_what_is_no_udid_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not a device"):
        udid_of(url)


def test_udids() -> None:
    assert udid_of("ios://") is None
    assert udid_of(f"ios://{UDID}/") == UDID
    assert udid_of("ios://" + "a1" * 20) == "a1" * 20
    assert udid_of("ios://123456BB-AEDE-7A22-B890-1234567890DD") == "123456BB-AEDE-7A22-B890-1234567890DD"


def test_a_bundle_for_another_platform_or_backend_is_refused(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="is for fake, and ios:// devices run ios bundles"):
        bench(make_bundle(), "ios://", tmp_path / "run")
    bundle = write_bundle(tmp_path, name="other", backend="xnnpack")
    with pytest.raises(UsageError, match="is for xnnpack, and the harness app has coreml alone"):
        bench(bundle, "ios://", tmp_path / "run")
    with pytest.raises(UsageError, match="--apk goes with adb://"):
        bench(bundle, "ios://", tmp_path / "run", apk=tmp_path / "app.apk")
    with pytest.raises(UsageError, match="--runtime tensorrt goes with ssh://"):
        bench(bundle, "ios://", tmp_path / "run", runtime="tensorrt")


def test_a_bundle_does_not_carry_the_app(tmp_path: Path) -> None:
    add_harness("ios", tmp_path)
    assert list(tmp_path.iterdir()) == []
