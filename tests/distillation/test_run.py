"""Whole runs at a toy size: what they write, how they resume, what they refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import diffusers
import pytest
import torch
from tiny import TINY, Killed, KilledAt, Recorder, tiny, train, weights

from rdd_edge.diffusion.checkpoint import one_step, read_checkpoint
from rdd_edge.distillation.run import distill, read_training_run, stage_names
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


def test_out_of_time_stops_at_a_checkpoint_and_goes_on(finished, tmp_path):
    out = tmp_path / "run"
    for _ in range(3):
        with pytest.raises(OutOfTime, match="stage extractor after"):
            distill(tiny(), out, device="cpu", deadline=0.0)
    second = Recorder()
    train(tiny(), out, second, device="cpu")
    assert second.stages[0] == ("extractor", 3)
    assert weights(out) == weights(finished)


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
    with pytest.raises(UsageError, match="started with a different preset"):
        distill(tiny("distillation.rate=0.1"), finished)


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
