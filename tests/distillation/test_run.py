"""Whole runs at a toy size: what they write, how they resume, what they refuse."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import diffusers
import pytest
import torch
from tiny import TINY, Killed, KilledAt, Recorder, tiny, train, weights

from rdd_edge.console import reporting_to
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import one_step
from rdd_edge.distillation.logs import stage_seconds
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import read_training_run, stage_names
from rdd_edge.distillation.trainer import OutOfTime
from rdd_edge.errors import CorruptError, MissingError, TrainingError, UsageError
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.files import sha256_of
from rdd_edge.portable.noise import normals


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    distill(tiny(), out, device="cpu")
    return out


def log(run: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "logs" / f"{stage}.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_folder_per_stage_and_no_state(finished):
    names = stage_names(tiny())
    assert names == ("extractor", "judge", "teacher", "student-8", "student-4", "student-2", "student-1", "refined")
    assert set(names) <= {path.name for path in finished.iterdir()}
    assert not list(finished.glob(".state/*"))
    assert read_training_run(finished).preset == tiny()


def test_the_log_holds_every_term_and_its_gradient_norm(finished):
    last = log(finished, "student-2")[-1]
    assert last["step"] == 5
    terms = ("cfd", "is_p2p", "m_p2p")
    assert set(last) == {"step", "loss", "grad_norm", *terms, *(f"{t}_grad_norm" for t in terms)}
    assert last["loss"] == pytest.approx(last["cfd"] + 100 * last["is_p2p"] + 0.1 * last["m_p2p"], rel=1e-5)
    assert all(last[f"{t}_grad_norm"] > 0 for t in terms)
    assert log(finished, "student-2")[0]["m_p2p"] is None  # the queue does not yet hold V entries
    assert set(log(finished, "student-8")[-1]) == {"step", "loss", "grad_norm", "pd", "pd_grad_norm"}


def test_the_student_opens_in_diffusers_and_its_scheduler_makes_the_same_images(finished):
    checkpoint = read_checkpoint(finished)
    z = torch.from_numpy(normals(0, range(4), checkpoint.image_shape))
    unet = diffusers.UNet2DModel.from_pretrained(checkpoint.folder, low_cpu_mem_usage=False)
    scheduler = diffusers.DDIMScheduler.from_pretrained(checkpoint.folder)
    scheduler.set_timesteps(1)
    with torch.no_grad():
        (timestep,) = scheduler.timesteps
        theirs = scheduler.step(unet(z, timestep).sample, timestep, z).prev_sample
        ours = one_step(checkpoint.load(), z)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stage", "after"), [("extractor", 3), ("teacher", 5), ("student-8", 2), ("student-2", 4), ("refined", 3)]
)
def test_a_killed_run_ends_with_the_same_weights(finished, tmp_path, stage, after):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny(), out, KilledAt(stage, after), device="cpu", save_seconds=0)
    (out / ".teacher.12345678").mkdir()  # left by a kill in the middle of a write
    second = Recorder()
    train(tiny(), out, second, device="cpu")
    assert not (out / ".teacher.12345678").exists()
    assert second.stages[0] == (stage, after - 1)  # killed in the step after its last save
    assert weights(out) == weights(finished)
    assert log(out, stage) == log(finished, stage)


def test_a_broken_state_is_passed_over_for_the_one_before(finished, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny(), out, KilledAt("teacher", 6), device="cpu", save_seconds=0)
    newest = max((out / ".state/teacher").glob("step-*")) / "state-00000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    second = Recorder()
    train(tiny(), out, second, device="cpu")
    assert second.stages[0] == ("teacher", 4)
    assert "SHA-256 differs" in second.notes[0]
    assert weights(out) == weights(finished)


def files_in(run: Path) -> int:
    """Number of safetensors files on disk, while folders come and go."""
    return sum(name.endswith(".safetensors") for _, _, names in os.walk(run) for name in names)


def test_kill_9_at_any_moment(finished, tmp_path):
    """SIGKILL to the process, three times."""
    out = tmp_path / "run"
    settings = [word for setting in TINY for word in ("--set", setting)]
    command = [sys.executable, "-m", "rdd_edge", "distill", "--out", str(out), "--save-seconds", "0", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for files in (1, 4, 9):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 240
        while process.poll() is None and files_in(out) < files:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--device", "cpu"], check=True, env=environment, capture_output=True)
    assert weights(out) == weights(finished)
    assert {path.name for path in out.iterdir()} == {path.name for path in finished.iterdir()}


def test_out_of_time_stops_at_a_checkpoint_and_goes_on(finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    for _ in range(3):
        with pytest.raises(OutOfTime, match="stopped before stage extractor"):
            distill(tiny(), out, device="cpu", deadline=0.0)
    times = iter([0.0] * 8)  # the deadline passes in one of the extractor's steps

    class Clock:
        monotonic = staticmethod(lambda: next(times, 2.0))

    with monkeypatch.context() as patch:
        patch.setattr("rdd_edge.distillation.trainer.time", Clock)
        patch.setattr("rdd_edge.distillation.run.time", Clock)
        with pytest.raises(OutOfTime, match=r"stopped in stage extractor after (\d) of 6 steps") as stop:
            distill(tiny(), out, device="cpu", deadline=1.0)
    done = int(re.search(r"after (\d)", str(stop.value))[1])
    second = Recorder()
    train(tiny(), out, second, device="cpu")
    assert second.stages[0] == ("extractor", done)
    assert second.notes == [f"stage extractor continues after {done} of 6 steps"]
    assert weights(out) == weights(finished)


def test_a_stage_that_may_not_be_compiled_in_time_does_not_begin(tmp_path):
    with pytest.raises(OutOfTime, match="stopped before stage extractor, too late to compile"):
        distill(tiny("compute.compile=true"), tmp_path / "run", device="cpu", deadline=time.monotonic() + 50)


class Interrupting(Recorder):
    """Ctrl-C in a step of the teacher."""

    def advance(self, done: int, loss: float | None = None) -> None:
        super().advance(done, loss)
        if self.stage == "teacher" and done == 3:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_at_a_saved_step_and_the_folder_alone_continues(finished, tmp_path, monkeypatch, capsys):
    from rdd_edge.cli import main

    out, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped in stage teacher after 4 of 8 steps$"):
        train(tiny(), out, Interrupting(), device="cpu")
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(sys, "argv", ["rdd-edge", "distill", "--out", str(out), "--device", "cpu"])
    monkeypatch.setattr("rdd_edge.console.ConsoleReporter", partial(reporting_to, Interrupting()))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (0, None)
    assert weights(out) == weights(finished)
    assert "the student is" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from rdd_edge.cli import main

    out = tmp_path / "run"
    words = [word for setting in TINY for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["rdd-edge", "distill", "--out", str(out), "--device", "cpu", *words])
    monkeypatch.setattr("rdd_edge.console.ConsoleReporter", partial(reporting_to, Interrupting()))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    says = f"rdd-edge: stopped in stage teacher after 4 of 8 steps: rdd-edge distill --out {out} continues it"
    assert says in capsys.readouterr().err


def test_starting_from_another_run_takes_its_base_and_trains_only_below(finished, tmp_path):
    reporter = Recorder()
    train(tiny(method="pd"), tmp_path / "pd", reporter, start_from=finished, device="cpu")
    assert [name for name, _ in reporter.stages] == ["student-4", "student-2", "student-1", "refined"]
    theirs, ours = weights(finished), weights(tmp_path / "pd")
    assert theirs["student-8"] == ours["student-8"]
    assert theirs["student-1"] != ours["student-1"]


def test_starting_from_an_unfit_run_is_refused(finished, tmp_path):
    with pytest.raises(UsageError, match="its network differs"):
        distill(tiny("network.channels=[8,8]"), tmp_path / "a", start_from=finished)
    with pytest.raises(MissingError):
        distill(tiny(), tmp_path / "b", start_from=tmp_path / "nothing")
    assert not (tmp_path / "a").exists()


def test_another_setting_for_the_same_folder_is_refused(finished):
    with pytest.raises(UsageError, match=r"started with distillation.rate=0.0005, and this command asks for 0.1"):
        distill(tiny("distillation.rate=0.1"), finished)
    with pytest.raises(UsageError, match=r"started with compute.device_noise=false, and this command asks for true"):
        distill(tiny("compute.device_noise=true"), finished)


def test_what_only_changes_the_speed_may_change_and_the_package_need_not_be_installed(finished, monkeypatch):
    def version(name: str) -> str:
        assert name != "rdd-edge"
        return "1"

    monkeypatch.setattr("rdd_edge.distillation.run.version", version)
    distill(tiny("compute.channels_last=true"), finished, device="cpu")
    assert read_training_run(finished).preset == tiny("compute.channels_last=true")
    distill(tiny(), finished, device="cpu")


def test_a_run_inherits_the_settings_that_it_is_started_from(finished, tmp_path):
    import rdd_edge

    run = rdd_edge.distill(tmp_path / "pd", method="pd", start_from=finished, device="cpu", settings=["pd.rate=0.001"])
    expected = tiny("pd.rate=0.001", method="pd")
    assert read_training_run(run.folder).preset == expected
    assert rdd_edge.distill(tmp_path / "pd", device="cpu").stopped is None
    with pytest.raises(UsageError, match=r"started with terms=\[\"pd\"\], and this command asks for"):
        rdd_edge.distill(tmp_path / "pd", method="rdd", device="cpu")


def test_a_given_student_takes_the_judge_of_the_run_that_it_is_started_from(finished, tmp_path):
    chosen = tiny().model_copy(update={"student_folder": str(finished / "student-1"), "student": tiny().network})
    reporter = Recorder()
    train(chosen, tmp_path / "run", reporter, start_from=finished, device="cpu")
    assert [name for name, _ in reporter.stages] == ["refined"]
    assert weights(tmp_path / "run")["judge"] == weights(finished)["judge"]


def test_minutes_are_shared_among_the_stages(tmp_path):
    out, minutes = tmp_path / "run", 0.15
    began, reporter = time.monotonic(), Recorder()
    with pytest.raises(Killed):
        train(tiny(), out, KilledAt("teacher", 2), device="cpu", minutes=minutes)
    train(tiny(), out, reporter, device="cpu")
    file = read_training_run(out)
    assert file.planned == (
        "extractor_training.epochs", "judge_training.epochs", "teacher.steps", "pd.steps", "distillation.steps",
        "refining.training.steps",
    )  # fmt: skip
    steps = [log(out, name)[-1]["step"] + 1 for name in ("teacher", "student-8", "student-4", "student-2", "refined")]
    p = file.preset
    assert steps == [
        p.teacher.steps, p.pd.steps, p.distillation.steps, p.distillation.steps, p.refining.training.steps
    ]  # fmt: skip
    assert p.teacher.steps > 8
    trained = sum(stage_seconds(out, name) for name in stage_names(p))
    assert 0.5 * minutes < trained / 60 < 1.5 * minutes
    assert time.monotonic() - began < 60 * 4 * minutes


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("notes")
    with pytest.raises(UsageError, match="neither empty nor a training run"):
        distill(tiny(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_diverging_run_names_stage_step_and_term(tmp_path):
    with pytest.raises(TrainingError, match=r"stage teacher diverged at step \d+: loss is (nan|inf)"):
        distill(tiny("teacher.rate=1e30", "teacher.clip=1e30", "teacher.steps=41"), tmp_path / "run")


def test_a_changed_checkpoint_is_refused(finished, tmp_path):
    run = tmp_path / "copy"
    (run / "student-1").mkdir(parents=True)
    for path in (finished / "student-1").iterdir():
        (run / "student-1" / path.name).write_bytes(path.read_bytes())
    victim = run / "student-1" / "diffusion_pytorch_model.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    with pytest.raises(CorruptError, match="SHA-256 differs"):
        read_checkpoint(run / "student-1")
    victim.write_bytes(content[:100])
    with pytest.raises(CorruptError, match="SHA-256 differs"):
        read_checkpoint(run / "student-1")


def test_a_run_without_its_student_says_so(tmp_path, finished):
    (tmp_path / "run.json").write_bytes((finished / "run.json").read_bytes())
    with pytest.raises(MissingError, match="has no refined yet"):
        read_checkpoint(tmp_path)


def test_a_classifier_is_the_one_that_the_run_records(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert read_training_run(run).classifiers_sha256 == {
        name: sha256_of(run / name / "model.safetensors") for name in ("extractor", "judge")
    }
    evaluation_sources(run, None, None)
    shutil.rmtree(run / "judge")
    shutil.copytree(run / "extractor", run / "judge")  # whose own card is right
    with pytest.raises(CorruptError, match=r"judge is not the classifier that the run\.json beside it records"):
        evaluation_sources(run, None, None)
