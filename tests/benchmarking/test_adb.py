"""Benchmark runs over adb: the real adb program, a device that speaks its protocol, and the harness's core in a JVM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from adb_device import ADB, APP_VERSION, AdbDevice, AdbServer
from bundles import write_fake_bundle
from devices import WhileTimed, tanh, wait_for
from records import REAL, Means
from tiny import Recorder

from rdd_edge.benchmarking import adb, android, harness_app
from rdd_edge.benchmarking.adb import Android, list_adb_devices, serial_of
from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.devices import list_devices
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.console import reporting_to
from rdd_edge.errors import (
    ArtifactError,
    CorruptError,
    DependencyError,
    DeviceError,
    MissingError,
    RddEdgeError,
    StorageError,
    ThresholdError,
    UsageError,
)
from rdd_edge.portable import noise

ROOT = Path(__file__).parents[2]
BUILT = os.environ.get("RDD_EDGE_ANDROID_TESTS")
needs_adb = pytest.mark.skipif(ADB is None, reason="adb is not installed: apt-get install adb")
needs_app = pytest.mark.skipif(ADB is None or not BUILT, reason="needs adb and the app built by `make test-android`")
PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0),
    accuracy=AccuracyPlan(samples=20, seed=3, floats=4),
    threads=1,
)
LONG = PLAN.changed(seconds=60)


def app(main: str = "PhoneKt") -> list[str]:
    """Command line of the app in a JVM: its core alone, or with PhoneActivityKt its activity in Robolectric."""
    if not BUILT:
        return ["true"]
    core, app = ROOT / BUILT, ROOT / BUILT.replace("core", "app")
    path = [str(built / kind) for built in (core, app) for kind in ("classes", "test-classes")]
    path += [str(app / "monitor/classes.jar"), (app / "classpath.txt").read_text()]
    options = [
        "-XX:TieredStopAtLevel=1",
        "-Drobolectric.offline=true",
        f"-Drobolectric.dependency.dir={app / 'android'}",
    ]
    java = shutil.which("java") or "java"
    return [java, *options, "-cp", os.pathsep.join(path), f"org.rddedge.harness.{main}"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbServer]:
    server = AdbServer(tmp_path / "adb-home")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(android, "POLL_SECONDS", 0.5)
    yield server
    server.close()


@pytest.fixture
def phone(tmp_path: Path, server: AdbServer) -> Iterator[AdbDevice]:
    device = AdbDevice(tmp_path / "phone", app())
    server.connect(device.serial)
    yield device
    device.close()


write_bundle = partial(write_fake_bundle, target="android")


@needs_app
def test_a_bundle_goes_there_and_its_run_comes_back(tmp_path: Path, phone: AdbDevice) -> None:
    bundle, recorder = write_bundle(tmp_path, channels=3, name="a b'; touch $(pwd)"), Recorder()
    with reporting_to(recorder):
        record = bench(bundle, "adb://", tmp_path / "run", PLAN)
    run = read_bench_run(tmp_path / "run")
    assert (run.record, run.plan) == (record, PLAN)
    assert (record.where, record.target, record.device.name) == ("device", "android", "a phone")
    x = tanh(range(20), (3, 8, 8), 3, None)
    assert (tmp_path / "run/samples.u8").read_bytes() == noise.to_uint8(x).tobytes()
    stages = [stage for stage, _ in recorder.stages]
    assert stages[0] == "copy"
    assert not [note for note in recorder.notes if "hides" in note]
    assert {"check", "verify", "load", "time", "samples"} <= set(stages)
    assert [note for note in recorder.notes if "dB from the student on the device" in note]
    assert (phone.left("runs"), phone.left("plans")) == ([], [])
    assert phone.left("bundles") == [record.bundle_sha256]
    again = Recorder()
    (phone.home / "runs/adb-abandoned").mkdir()
    (phone.home / "runs/by-finger").mkdir()
    with reporting_to(again):
        bench(bundle, f"adb://{phone.serial}", tmp_path / "run", PLAN)
    assert "copy" not in [stage for stage, _ in again.stages]
    assert phone.left("runs") == ["by-finger"]


@needs_app
@pytest.mark.parametrize(("precision", "checkpoint"), [("fp32", "tiny"), ("int8", "tiny_conditional")])
def test_its_images_are_those_of_the_host_bit_for_bit(
    tmp_path: Path, phone: AdbDevice, precision: str, checkpoint: str, request: pytest.FixtureRequest
) -> None:
    """The app's activity in Robolectric with the real ExecuTorch behind it, through the real adb, to scores."""
    from rdd_edge.evaluation.scores import score
    from rdd_edge.exporting.pipeline import export_bundles

    pytest.importorskip("executorch")
    student = request.getfixturevalue(f"{checkpoint}_checkpoint")
    (bundle,) = export_bundles(student, ("android",), precision, tmp_path / "bundles")
    phone.set_app(app("PhoneActivityKt"))
    phone.environment["CHILD"] = f"{sys.executable} {ROOT / 'tests/child.py'} android"
    record = bench(bundle.folder, "adb://", tmp_path / "run", PLAN)
    bench(bundle.folder, "host", tmp_path / "host", PLAN)
    for name in ("samples.u8", "samples.f32"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "host" / name).read_bytes()
    bench(student, "server", tmp_path / "server", PLAN)
    psnr = score(tmp_path / "run", tmp_path / "server", REAL, Means()).psnr_float
    assert psnr is not None and psnr.median_db > 35
    wait_for(lambda: (phone.folder / "screen.png").exists())
    assert (phone.folder / "screen.png").stat().st_size > 10_000
    assert (record.precision, record.runtime and record.runtime.name) == (precision, "executorch")


def sentence(error: pytest.ExceptionInfo[RddEdgeError]) -> str:
    """The message, which has to be one printable line that names the phone."""
    text = str(error.value)
    assert text.isprintable() and "127.0.0.1:" in text, text
    return text


@needs_app
@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("load 0", ArtifactError, "cannot load .* the program needs a newer runtime"),
        ("channels 0", ThresholdError, "dB from the student on this device, and 80.0 dB are required"),
        ("throws 8", ArtifactError, "cannot run .*model.fake: out of arena"),  # the third timed run
        ("stuck 8", ArtifactError, r"there was no progress for 1.0 s in stage time"),
        ("dies 8", ArtifactError, "the harness app on .* died in stage time: .*perhaps for lack of memory"),
    ],
)
def test_a_fault_of_the_runtime_is_named(
    tmp_path: Path, phone: AdbDevice, fault: str, kind: type[RddEdgeError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(android, "STALL_SECONDS", 1.0)
    phone.set(fault=fault)
    with pytest.raises(kind, match=says) as error:
        bench(write_bundle(tmp_path, channels=3), "adb://", tmp_path / "run", PLAN)
    sentence(error)
    assert not (tmp_path / "run").exists()
    assert (phone.left("runs"), phone.left("plans"), phone.app_pid()) == ([], [], None)


@needs_app
def test_a_crash_is_shown_with_its_log(tmp_path: Path, phone: AdbDevice) -> None:
    crash = "old crash\nProcess: org.rddedge.harness, PID: 1\nold\npid: PID, tid: 7, name: benchmark  >>> org.rddedge"
    crash += ".harness <<<\nsignal 11 (SIGSEGV), code 1\nAbort message: '\x1b[2Jxnn_create'\nbacktrace:\n"
    kill = WhileTimed(lambda: phone.kill_app(crash))
    with reporting_to(kill), pytest.raises(ArtifactError, match=r"died in stage time: pid: .*SIGSEGV") as error:
        bench(write_bundle(tmp_path), "adb://", tmp_path / "run", LONG)
    assert "xnn_create" in sentence(error)
    assert "backtrace" not in str(error.value)


@needs_app
def test_an_app_that_the_system_starts_again_is_not_waited_for(tmp_path: Path, phone: AdbDevice) -> None:
    kill = WhileTimed(lambda: phone.kill_app(again=True))
    with reporting_to(kill), pytest.raises(ArtifactError, match="died in stage time") as error:
        bench(write_bundle(tmp_path), "adb://", tmp_path / "run", LONG)
    sentence(error)
    assert phone.app_pid() is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """App and driver give up after three seconds."""
    monkeypatch.setattr(android, "STALL_SECONDS", 3.0)
    monkeypatch.setattr(harness_app, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(harness_app, "HIDDEN_SECONDS", 1.0)


@needs_app
def test_a_phone_that_hides_the_logs_of_apps_is_waited_for(tmp_path: Path, phone: AdbDevice, impatient: None) -> None:
    phone.set(hides_logs="1")
    recorder = Recorder()
    with reporting_to(recorder):
        record = bench(write_bundle(tmp_path), "adb://", tmp_path / "run", PLAN.changed(seconds=9))
    assert record.latency_ms and sum(record.latency_ms) < 20_000
    assert recorder.stages[-1][0] == "start"
    assert len([note for note in recorder.notes if "hides what apps log" in note]) == 1


@needs_app
def test_an_app_that_does_nothing_is_given_up(tmp_path: Path, phone: AdbDevice, impatient: None) -> None:
    freeze = WhileTimed(lambda: os.killpg(phone.app_pid() or 0, signal.SIGSTOP))
    with reporting_to(freeze), pytest.raises(ArtifactError, match=r"made no progress for 3 s in stage time") as error:
        bench(write_bundle(tmp_path), "adb://", tmp_path / "run", LONG)
    sentence(error)
    assert (phone.left("runs"), phone.app_pid()) == ([], None)


@needs_app
def test_a_cable_that_is_cut_leaves_the_old_run(tmp_path: Path, phone: AdbDevice) -> None:
    bundle = write_bundle(tmp_path)
    record = bench(bundle, "adb://", tmp_path / "run", PLAN)
    with reporting_to(WhileTimed(phone.unplug)), pytest.raises(DeviceError, match="was disconnected") as error:
        bench(bundle, "adb://", tmp_path / "run", LONG)
    assert "stage time" in sentence(error)
    assert read_bench_run(tmp_path / "run").record == record


@needs_app
def test_an_interrupt_stops_the_app(tmp_path: Path, phone: AdbDevice) -> None:
    command = [sys.executable, "-m", "rdd_edge", "bench", str(write_bundle(tmp_path)), "--device", "adb://"]
    command += ["--out", str(tmp_path / "run"), "--seconds", "60", "--n", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: "time 1" in (phone.folder / "log/main").read_text())
        assert phone.app_pid()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in stderr) == (130, False)
    assert phone.app_pid() is None
    assert (phone.left("runs"), (tmp_path / "run").exists()) == ([], False)


@needs_app
def test_a_phone_that_is_full_is_a_sentence(tmp_path: Path, phone: AdbDevice) -> None:
    phone.free_bytes = 100
    with pytest.raises(StorageError, match="has no space left") as error:
        bench(write_bundle(tmp_path), "adb://", tmp_path / "run", PLAN)
    sentence(error)
    assert phone.left("bundles") == []


@needs_app
def test_a_damaged_copy_is_refused_and_sent_anew(tmp_path: Path, phone: AdbDevice) -> None:
    bundle = write_bundle(tmp_path)
    record = bench(bundle, "adb://", tmp_path / "run", PLAN)
    (phone.inbox / "bundles" / str(record.bundle_sha256) / "model.fake").write_bytes(b"gone")
    with pytest.raises(CorruptError, match=r"model\.fake"):
        bench(bundle, "adb://", tmp_path / "run", PLAN)
    bench(bundle, "adb://", tmp_path / "run", PLAN)


@needs_app
def test_what_does_not_fit_is_not_believed(tmp_path: Path, phone: AdbDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record, an error.json, a self-test and an archive that are not those of this run."""
    bundle, other = write_bundle(tmp_path), write_bundle(tmp_path, "another", name="other")
    bench(other, "adb://", tmp_path / "foreign", PLAN)
    foreign = subprocess.run(["tar", "-C", tmp_path / "foreign", "-cf", "-", "."], capture_output=True).stdout
    lies = {
        "another bundle or plan": ("tar -C", foreign + b" 0\n"),
        "not a readable tar": ("tar -C", b"\x1b[2J 0\n"),
        "error.json of .* is not valid": ("head -c", b'{"kind": 1} 0\n'),
    }
    for says, (command, answer) in lies.items():
        phone.answer = lambda sent, command=command, answer=answer: answer if command in sent else None
        with pytest.raises(CorruptError, match=says) as error:
            bench(bundle, "adb://", tmp_path / "run", PLAN)
        assert str(error.value).isprintable()
        assert not (tmp_path / "run").exists()
    phone.answer = lambda sent: None
    bench(bundle, "adb://", tmp_path / "run", PLAN)
    monkeypatch.setattr(android, "most_archive_bytes", lambda *_: 0)
    with pytest.raises(CorruptError, match=r"sent back more than the [0-9]+ bytes that were expected"):
        bench(bundle, "adb://", tmp_path / "run", PLAN)


@needs_adb
def test_the_app_is_installed_where_it_differs(tmp_path: Path, phone: AdbDevice) -> None:
    bundle = write_bundle(tmp_path)
    phone.set(installed="")
    with pytest.raises(DeviceError, match=r"is not installed on .*: build it with `rdd-edge harness") as error:
        bench(bundle, "adb://", tmp_path / "run", PLAN)
    sentence(error)
    phone.set(installed="0.9")
    with pytest.raises(DeviceError, match=rf"has version 0\.9 of the harness app, not {APP_VERSION}:") as error:
        bench(bundle, "adb://", tmp_path / "run", PLAN)
    sentence(error)
    apk = tmp_path / "app.apk"
    with pytest.raises(MissingError, match=r"there is no .*app\.apk"):
        bench(bundle, "adb://", tmp_path / "run", PLAN, apk=apk)
    apk.write_text("99")
    with pytest.raises(DeviceError, match=f"has version 99 of the harness app, not {APP_VERSION}:"):
        bench(bundle, "adb://", tmp_path / "run", PLAN, apk=apk)
    apk.write_text("FAIL")
    with pytest.raises(DeviceError, match=r"was not installed: .*INSTALL_FAILED_UPDATE_INCOMPATIBLE") as error:
        bench(bundle, "adb://", tmp_path / "run", PLAN, apk=apk)
    sentence(error)


@needs_adb
def test_hints_are_printed_once(phone: AdbDevice) -> None:
    recorder = Recorder()
    with reporting_to(recorder):
        android._give_hints(Android(None))
        phone.set(airplane="0", level="12", temperature="384", boot_reason="shutdown,thermal")
        android._give_hints(Android(None))
    (note,) = recorder.notes
    for hint in ("let it cool down", "38 °C", "charge it (12 %)", "airplane mode", "shut down because of heat"):
        assert hint in note


@needs_app
def test_the_app_is_installed_once(tmp_path: Path, phone: AdbDevice) -> None:
    phone.set(installed="")
    apk = tmp_path / "app.apk"
    apk.write_text(APP_VERSION)
    bench(write_bundle(tmp_path), "adb://", tmp_path / "run", PLAN, apk=apk)
    bench(tmp_path / "bundle", "adb://", tmp_path / "run", PLAN, apk=apk)
    assert len([command for command in phone.commands if "pm 'install'" in command]) == 1


@needs_adb
def test_devices_that_cannot_be_used_are_sentences(tmp_path: Path, server: AdbServer) -> None:
    bundle, out = write_bundle(tmp_path), tmp_path / "run"
    with pytest.raises(DeviceError, match="adb lists no device: connect one"):
        bench(bundle, "adb://", out)
    one, two = AdbDevice(tmp_path / "one"), AdbDevice(tmp_path / "two")
    try:
        one.authorized = False
        server.connect(one.serial)
        with pytest.raises(DeviceError, match="is unauthorized: unlock it and allow USB debugging"):
            bench(bundle, "adb://", out)
        server.connect(two.serial)
        with pytest.raises(UsageError, match=f"several devices: .*adb://{two.serial}") as error:
            bench(bundle, "adb://", out)
        sentence(error)
        with pytest.raises(DeviceError, match=f"adb lists no device other: there is .*adb://{two.serial}"):
            bench(bundle, "adb://other", out)
        two.unplug()
        wait_for(lambda: {device.serial: device.state for device in list_adb_devices()}[two.serial] == "offline")
        with pytest.raises(DeviceError, match="is offline: unplug it"):
            bench(bundle, f"adb://{two.serial}", out)
    finally:
        one.close()
        two.close()
    assert not out.exists()


def test_without_adb_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="apt-get install adb"):
        bench(write_bundle(tmp_path), "adb://", tmp_path / "run")


@pytest.mark.parametrize(
    "url",
    ["adb://-s", "adb://a b", "adb://a;id", "adb://$(id)", "adb://a/b", "adb://a\n", "adb:// ", "adb://" + "x" * 200],
)
def test_what_is_no_serial_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not a device"):
        serial_of(url)


def test_serials() -> None:
    assert serial_of("adb://") is None
    assert serial_of("adb://28161FDF6006PQ") == "28161FDF6006PQ"
    assert serial_of("adb://192.168.1.7:5555/") == "192.168.1.7:5555"
    assert serial_of("adb://adb-1A2B._adb-tls-connect._tcp") == "adb-1A2B._adb-tls-connect._tcp"


LISTED = """List of devices attached
28161FDF6006PQ         device usb:1-2 product:shiba model:Pixel_8 device:shiba transport_id:1
????????????           no permissions (user in plugdev group; are your udev rules wrong?); see [http://a.b] usb:1-3
R58M123                unauthorized usb:1-4 transport_id:3
emulator-5554          offline transport_id:4
X\x1b[2J               device model:\x1b[2J
* daemon started successfully
"""


def write_adb(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of this name on the PATH, in place of the real one."""
    (folder / "adb").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin; {script}\n")
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_list_of_devices_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adb(tmp_path, monkeypatch, f"cat <<'EOF'\n{LISTED}EOF")
    found = [(device.serial, device.state, device.model) for device in list_adb_devices()]
    assert found == [
        ("28161FDF6006PQ", "device", "Pixel 8"),
        ("????????????", "no permissions", ""),
        ("R58M123", "unauthorized", ""),
        ("emulator-5554", "offline", ""),
    ]
    assert [device.advice is None for device in list_adb_devices()] == [True, False, False, False]


def test_devices_are_listed_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adb(tmp_path, monkeypatch, f"cat <<'EOF'\n{LISTED}EOF")
    rows = dict(list_devices())
    assert {"host", "server", "adb://28161FDF6006PQ", "adb://R58M123"} <= set(rows)
    assert rows["adb://28161FDF6006PQ"] == "Pixel 8"
    assert rows["adb://R58M123"].startswith("unauthorized: unlock it")
    with pytest.raises(UsageError, match="is not a destination"):
        list_devices(["ssh://-oProxyCommand=x"])
    (tmp_path / "adb").unlink()
    assert "apt-get install adb" in dict(list_devices())["adb://"]


def test_an_adb_server_that_hangs_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its list of devices, and from a command on one of them, whose state is asked for after it."""
    monkeypatch.setitem(adb._adb.__kwdefaults__, "wait", 0.2)
    listed = "List of devices attached\nR5 device model:Pixel\n"
    for hangs, says in (("devices", "adb devices did not"), ("-s", "R5: adb exec-out did not")):
        write_adb(tmp_path, monkeypatch, f"[ $1 = {hangs} ] && exec sleep 60; printf '{listed}'")
        with pytest.raises(DeviceError, match=f"{says} answer for 0.2 s: run `adb kill-server`, and try again"):
            bench(write_bundle(tmp_path, name=hangs), "adb://", tmp_path / "run")


def test_a_bundle_for_another_platform_is_refused(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    with pytest.raises(UsageError, match="is for fake, and adb:// devices run android bundles"):
        bench(bundle, "adb://", tmp_path / "run")
    with pytest.raises(UsageError, match="--apk goes with adb://"):
        bench(bundle, "host", tmp_path / "run", apk=tmp_path / "app.apk")
