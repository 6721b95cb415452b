"""Benchmark runs over ssh, against a real OpenSSH server on the loopback address."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tanh_pte
from devices import wait_for
from records import REAL, Means
from tanh_onnx import write_tanh_bundle
from tiny import Recorder

from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.connection import CONFIG, Destination, show_progress
from rdd_edge.benchmarking.returned import SelfTest, unpack
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan, read_bundle
from rdd_edge.console import Reporter, reporting_to
from rdd_edge.errors import ArtifactError, CorruptError, DeviceError, UsageError
from rdd_edge.files import sha256_of, write_model
from rdd_edge.reading.documents import read_model

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="sshd is not installed: apt-get install openssh-server")
PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0, starts=1),
    accuracy=AccuracyPlan(samples=20, seed=3, floats=4),
    threads=1,
)
LONG = PLAN.model_copy(update={"performance": PerformancePlan(warmup=0, runs=1, seconds=60)})
JETSON = Path(__file__).parents[1] / "fakes" / "jetson"


class Board:
    """An ssh server with a separate home directory."""

    def __init__(self, folder: Path, fakes: Path | str = JETSON) -> None:
        self.folder, self.home, self.fakes = folder, folder / "home", fakes
        self.home.mkdir()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        self._write_configs()
        self.process = self._start()

    def _write_configs(self) -> None:
        # Another home than the user's own, and the Python of these tests
        board = f"PYTHONPATH={self.fakes} FAKE_TENSORRT=11.4.0.106 HOME={self.home}"
        path = f"PATH={Path(sys.executable).parent}:$PATH"
        login = f'cd {self.home} && export {board} {path} && eval "$SSH_ORIGINAL_COMMAND"'
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}\nPidFile none\nPermitRootLogin yes\n"
            f"ForceCommand {login}\n"
        )
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")
        (self.folder / "ssh_config").write_text(
            f"UserKnownHostsFile {self.folder / 'known_hosts'}\nGlobalKnownHostsFile /dev/null\n"
            f"IdentityFile {self.folder / 'user'}\nIdentitiesOnly yes\nKexAlgorithms curve25519-sha256\n"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        process = subprocess.Popen(command, stderr=(self.folder / "sshd.log").open("wb"))
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.1)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def sessions(self) -> list[int]:
        """Processes of the current logins."""
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def cut(self) -> None:
        """Kill every session, as a cut cable would."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):  # it ended by itself in between
                os.kill(pid, signal.SIGKILL)

    def harnesses(self) -> list[int]:
        """Processes of the harness on this board, without those of boards of other tests."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended in between
                command, where = (process / "cmdline").read_bytes(), os.readlink(process / "cwd")
                if b"harness/bench.py" in command and b"python" in command.split(b"\0")[0] and where == str(self.home):
                    found.append(int(process.name))
        return found

    def left(self, name: str) -> list[str]:
        return sorted(os.listdir(self.home / ".cache/rdd-edge" / name))


class WhileTimed(Reporter):
    """Does something whenever a timed run is reported."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def advance(self, done: int, loss: float | None = None) -> None:
        if self.stage == "time":
            self.action()


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Board]:
    """A Jetson, or with the parameter "" a machine with what is installed here."""
    folder = tmp_path / "board"
    folder.mkdir()
    server = Board(folder, getattr(request, "param", JETSON))
    monkeypatch.setenv(CONFIG, str(folder / "ssh_config"))
    yield server
    server.cut()
    server.process.kill()
    server.process.wait()


@needs_sshd
def test_a_bundle_goes_there_and_its_run_comes_back(tmp_path: Path, board: Board) -> None:
    bundle, recorder = write_tanh_bundle(tmp_path), Recorder()
    with reporting_to(recorder):
        record = bench(bundle, board.url, tmp_path / "run", PLAN)
    run = read_bench_run(tmp_path / "run")
    assert run.record == record
    assert (record.where, record.target, run.plan) == ("device", "jetson", PLAN)
    assert read_model(tmp_path / "run" / "selftest.json", SelfTest).threshold_db == 80
    assert any("dB from the student there, median of 2 images" in note for note in recorder.notes)
    bench(bundle, "host", tmp_path / "host", PLAN)
    np.testing.assert_array_equal(run.images(), read_bench_run(tmp_path / "host").images())
    stages = [stage for stage, _ in recorder.stages]
    assert stages[0] == "copy"
    assert "load" in stages
    assert board.left("runs") == []
    assert board.left("bundles") == [record.bundle_sha256]
    abandoned = board.home / ".cache/rdd-edge/runs/abandoned"
    (abandoned / "out").mkdir(parents=True)
    os.utime(abandoned, (time.time() - 3 * 86400,) * 2)
    again = Recorder()
    with reporting_to(again):
        bench(bundle, board.url, tmp_path / "run", PLAN)
    assert board.left("runs") == []
    assert "copy" not in [stage for stage, _ in again.stages]


@needs_sshd
def test_a_link_that_is_cut_leaves_the_old_run(tmp_path: Path, board: Board) -> None:
    bundle = write_tanh_bundle(tmp_path)
    record = bench(bundle, board.url, tmp_path / "run", PLAN)

    cut = WhileTimed(board.cut)
    with reporting_to(cut), pytest.raises(DeviceError, match="cannot be reached, or the connection to it broke"):
        bench(bundle, board.url, tmp_path / "run", LONG)
    assert read_bench_run(tmp_path / "run").record == record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board", "bundle", "run"]
    assert bench(bundle, board.url, tmp_path / "run", PLAN).bundle_sha256 == record.bundle_sha256


@needs_sshd
def test_a_harness_that_is_killed_leaves_the_old_run(tmp_path: Path, board: Board) -> None:
    bundle = write_tanh_bundle(tmp_path)
    record = bench(bundle, board.url, tmp_path / "run", PLAN)

    def kill() -> None:
        for pid in board.harnesses():
            os.kill(pid, signal.SIGKILL)

    with reporting_to(WhileTimed(kill)), pytest.raises(ArtifactError, match=r"the harness on .* SIGKILL"):
        bench(bundle, board.url, tmp_path / "run", LONG)
    assert read_bench_run(tmp_path / "run").record == record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board", "bundle", "run"]
    assert board.left("runs") == []


@needs_sshd
def test_a_bench_that_is_killed_leaves_nothing_half_done(tmp_path: Path, board: Board) -> None:
    """After SIGKILL on this side there is no folder here, and the board stops."""
    bundle = write_tanh_bundle(tmp_path)
    command = [sys.executable, "-m", "rdd_edge", "bench", str(bundle), "--device", board.url]
    command += ["--out", str(tmp_path / "run"), "--seconds", "60", "--n", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(board.harnesses, 30)
        time.sleep(1.0)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not board.harnesses(), 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board", "bundle"]
    bench(bundle, board.url, tmp_path / "run", PLAN)
    assert read_bench_run(tmp_path / "run").plan == PLAN


@needs_sshd
def test_a_damaged_copy_is_refused_and_sent_anew(tmp_path: Path, board: Board) -> None:
    bundle = write_tanh_bundle(tmp_path)
    record = bench(bundle, board.url, tmp_path / "run", PLAN)
    copy = board.home / ".cache/rdd-edge/bundles" / str(record.bundle_sha256)
    (copy / "model.fake").write_bytes(b"gone")
    with pytest.raises(CorruptError, match="is not the file its manifest names"):
        bench(bundle, board.url, tmp_path / "run", PLAN)
    bench(bundle, board.url, tmp_path / "run", PLAN)


@needs_sshd
def test_images_far_from_the_students_are_no_run(tmp_path: Path, board: Board) -> None:
    bundle = write_tanh_bundle(tmp_path)
    manifest = read_bundle(bundle).manifest
    x = bundle / "parity" / "x.f32"
    x.write_bytes((np.fromfile(x, "<f4") + np.float32(0.1)).astype("<f4").tobytes())
    manifest = manifest.model_copy(update={"files": {**manifest.files, "parity/x.f32": sha256_of(x)}})
    write_model(bundle / "manifest.json", manifest)
    with pytest.raises(ArtifactError, match=r"26\.0 dB from the student's .* have to reach 80 dB"):
        bench(bundle, board.url, tmp_path / "run", PLAN)
    assert not (tmp_path / "run").exists()
    parity = manifest.parity.model_copy(update={"low_allowed": True})
    write_model(bundle / "manifest.json", manifest.model_copy(update={"parity": parity}))
    assert bench(bundle, board.url, tmp_path / "run", PLAN).latency_ms is not None


@needs_sshd
def test_an_unknown_host_key_is_refused(tmp_path: Path, board: Board) -> None:
    (board.folder / "known_hosts").write_text("")
    with pytest.raises(DeviceError, match="Host key verification failed"):
        bench(write_tanh_bundle(tmp_path), board.url, tmp_path / "run", PLAN)
    assert not (tmp_path / "run").exists()


@needs_sshd
def test_what_does_not_fit_is_not_believed(tmp_path: Path, board: Board) -> None:
    """A harness that sends back a link, an unknown file, or the run of another plan."""
    bundle = write_tanh_bundle(tmp_path)
    record = bench(bundle, board.url, tmp_path / "run", PLAN)
    harness = board.home / ".cache/rdd-edge/bundles" / str(record.bundle_sha256) / "harness/bench.py"
    lie = "import os, sys; out = sys.argv[sys.argv.index('--out') + 1]; os.makedirs(out)\n"
    harness.write_text(lie + "os.symlink('/etc/passwd', out + '/record.json')")
    with pytest.raises(CorruptError, match=r"sent back 'record.json', which is not part of a benchmark run"):
        bench(bundle, board.url, tmp_path / "new", PLAN)
    harness.write_text(lie + "open(out + '/evil', 'w').write('x')")
    with pytest.raises(CorruptError, match="sent back 'evil'"):
        bench(bundle, board.url, tmp_path / "new", PLAN)
    other = tmp_path / "run"
    harness.write_text(lie + f"import shutil; shutil.copytree({str(other)!r}, out, dirs_exist_ok=True)")
    with pytest.raises(CorruptError, match="another bundle or plan"):
        bench(bundle, board.url, tmp_path / "new", PLAN.changed(samples=21))
    assert not (tmp_path / "new").exists()


@needs_sshd
@pytest.mark.parametrize("board", [""], indirect=True)
def test_an_android_bundle_runs_on_a_linux_board(tmp_path: Path, board: Board) -> None:
    pytest.importorskip("executorch")
    bundle = tanh_pte.write_tanh_bundle(tmp_path)
    record = bench(bundle, board.url, tmp_path / "run", PLAN)
    assert (record.target, record.where, record.runtime.name) == ("android", "device", "executorch")
    run = read_bench_run(tmp_path / "run")
    bench(bundle, "host", tmp_path / "host", PLAN)
    np.testing.assert_array_equal(run.images(), read_bench_run(tmp_path / "host").images())
    assert read_model(tmp_path / "run" / "selftest.json", SelfTest).threshold_db == 80


def test_nobody_at_home_is_a_sentence(tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed: apt-get install openssh-client")
    with pytest.raises(DeviceError, match=r"127.0.0.1:1 cannot be reached"):
        bench(write_tanh_bundle(tmp_path), "ssh://127.0.0.1:1", tmp_path / "run", PLAN)


def test_a_bundle_without_a_harness_is_a_sentence(tmp_path: Path, make_bundle: object) -> None:
    bundle = make_bundle()  # type: ignore[operator]
    with pytest.raises(UsageError, match="has no harness to run"):
        bench(bundle, "ssh://board", tmp_path / "run", PLAN)


@pytest.mark.parametrize(
    "url",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://-l@host", "ssh://a b", "ssh://host:0", "ssh://host:99999", "ssh://h;id",
     "ssh://$(id)", "ssh://u@-h", "ssh://host/path", "ssh://host\n"],
)  # fmt: skip
def test_what_is_no_destination_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not a destination"):
        Destination.parse(url)


def test_destinations() -> None:
    assert Destination.parse("ssh://board") == Destination("board")
    assert Destination.parse("ssh://me@10.0.0.7:2222") == Destination("10.0.0.7", "me", 2222)
    assert Destination.parse("ssh://[fe80::1]:22").host == "fe80::1"
    command = Destination("board", "me", 2222).command("echo hi")
    assert command[-3:] == ["--", "board", "echo hi"]
    assert "StrictHostKeyChecking=yes" in command


def archive(files: dict[str, bytes], mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


GOOD = archive({"./plan.json": b"{}", "./samples.u8": bytes(100)})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD[:700], "is not a readable tar"),
        (GOOD[:1600], "is not a readable tar"),
        (b"", "is not a readable tar"),
        (random.Random(0).randbytes(5000), "is not a readable tar"),
        (archive({"samples.u8": bytes(100)}, "w:gz"), "is not a readable tar"),
        (archive({"samples.u8": bytes(101)}), "samples.u8 with 101 bytes; the plan allows 100"),
        (archive({"../plan.json": b"{}"}), "'../plan.json', which is not part of a benchmark run"),
        (archive({"\x1b[2J": b""}), r"'\\x1b\[2J', which is not part of a benchmark run"),
    ],
    ids=["header cut", "data cut", "empty", "noise", "compressed", "large file", "path outside", "control characters"],
)
def test_an_archive_is_bounded_by_the_plan(tmp_path: Path, content: bytes, sentence: str) -> None:
    most = {"plan.json": 10, "samples.u8": 100}
    unpack(GOOD, tmp_path, most, Destination("board"))
    assert (tmp_path / "samples.u8").read_bytes() == bytes(100)
    with pytest.raises(CorruptError, match=sentence) as error:
        unpack(content, tmp_path, most, Destination("board"))
    assert str(error.value).isprintable()


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar makes the archive")
def test_an_archive_that_grows_is_not_unpacked(tmp_path: Path) -> None:
    """A sparse file: a few bytes of archive that stand for a gigabyte."""
    source = tmp_path / "source"
    source.mkdir()
    with (source / "samples.u8").open("wb") as file:
        file.truncate(1 << 30)
    bomb = subprocess.run(["tar", "-C", source, "--sparse", "-cf", "-", "."], capture_output=True, check=True).stdout
    assert len(bomb) < 1 << 16
    (tmp_path / "run").mkdir()
    with pytest.raises(CorruptError, match=r"samples\.u8 with 1073741824 bytes; the plan allows 100"):
        unpack(bomb, tmp_path / "run", {"samples.u8": 100}, Destination("board"))
    assert list((tmp_path / "run").iterdir()) == []


@needs_sshd
def test_more_than_the_plan_allows_is_not_read(tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_tanh_bundle(tmp_path)
    monkeypatch.setattr("rdd_edge.benchmarking.ssh.most_archive_bytes", lambda *_: 5120)
    with pytest.raises(CorruptError, match="sent back more than the 5120 bytes that were expected"):
        bench(bundle, board.url, tmp_path / "run", PLAN)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "line",
    [b"", b"hello", b"[" * 100_000, b'{"stage": "time"}', b'{"stage": "time", "done": -1}', b"\xff",
     b'{"stage": "time", "done": 1e999}', b'{"stage": "time", "done": NaN}', b'{"stage": ["time"], "done": 1}',
     b'{"stage": "time", "done": %s}' % (b"9" * 4000), b'{"stage": "time", "done": null}'],
)  # fmt: skip
def test_absurd_progress_is_skipped(line: bytes) -> None:
    recorder = Recorder()
    with reporting_to(recorder):
        show_progress(line)
        show_progress(b'{"stage": "time", "done": 3}')
    assert recorder.counts == [("time", 3)]


def test_a_stage_brings_no_control_characters_to_the_terminal() -> None:
    recorder = Recorder()
    with reporting_to(recorder):
        show_progress(b'{"stage": "\\u001b[2J\\u0007time", "done": 3}')
    assert recorder.counts == [("?[2J?time", 3)]


@needs_sshd
def test_the_runtime_is_the_boards_own_unless_another_is_asked_for(tmp_path: Path, board: Board) -> None:
    bundle, recorder = write_tanh_bundle(tmp_path), Recorder()
    with reporting_to(recorder):
        own = bench(bundle, board.url, tmp_path / "own", PLAN)
    asked = bench(bundle, board.url, tmp_path / "asked", PLAN, "onnxruntime")
    assert own.runtime is not None
    assert asked.runtime is not None
    assert (own.runtime.name, asked.runtime.name) == ("tensorrt", "onnxruntime")
    assert "build" in [stage for stage, _ in recorder.stages]
    assert len(list((board.home / ".cache/rdd-edge/engines").glob("*.engine"))) == 1
    np.testing.assert_array_equal(
        read_bench_run(tmp_path / "own").images(), read_bench_run(tmp_path / "asked").images()
    )
    with pytest.raises(UsageError, match="goes with ssh://"):
        bench(bundle, "host", tmp_path / "host", PLAN, "onnxruntime")
    with pytest.raises(UsageError, match="invalid choice: 'tpu'"):
        bench(bundle, board.url, tmp_path / "new", PLAN, "tpu")
    assert not (tmp_path / "new").exists()
    assert board.left("runs") == []


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime"])
def test_exported_students_go_the_whole_way(
    tmp_path: Path, board: Board, tiny_conditional_checkpoint: Path, runtime: str
) -> None:
    """Export, benchmark over ssh and on the server, evaluate: the board's images differ by rounding only."""
    from rdd_edge.evaluation.scores import score
    from rdd_edge.exporting.pipeline import export_bundles

    export_bundles(tiny_conditional_checkpoint, ("jetson",), "all", tmp_path / "bundles")
    bench(tiny_conditional_checkpoint, "server", tmp_path / "server", PLAN)
    for precision, least in (("fp32", 100.0), ("fp16", 45.0), ("int8", 25.0)):
        out = tmp_path / precision
        record = bench(tmp_path / "bundles" / f"jetson-{precision}", board.url, out, PLAN, runtime)
        assert record.runtime is not None
        assert record.runtime.name == runtime
        assert record.operators is not None
        found = score(out, tmp_path / "server", REAL, Means(), out / "scores.json")
        assert found.psnr_float is not None
        assert found.psnr_float.median_db > least, precision
        assert not found.diagnoses, found.diagnoses
