"""Two processes train the same as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, tiny

from rdd_edge.diffusion.network import build_unet
from rdd_edge.distillation.compute_context import generator
from rdd_edge.distillation.run import distill
from rdd_edge.distributed import DistributedContext
from rdd_edge.errors import UsageError

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)


def test_two_processes_have_the_losses_and_weights_of_one(tmp_path):
    """A batch of 9, so that their parts differ in size; M_P2P joins in the second step; float64."""
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for launcher, file in zip(([sys.executable], TORCHRUN), files, strict=True):
        done = run([*launcher, str(HERE / "processes.py"), str(file), "9"])
        assert done.returncode == 0, done.stderr
    one, two = (load_file(file) for file in files)
    assert set(one) == set(two)
    terms = ("pd", "cfd", "ii_p2p", "is_p2p", "m_p2p", "lpips", "m_p2p_grad_norm", "loss", "grad_norm")
    assert {f"rdd/19/{term}" for term in terms} <= set(one)
    assert {"rdd/state/head.0.weight", "rdd/state/queue.entries", "extractor/19/loss"} <= set(one)
    assert {"conversion/19/loss", "smaller/19/loss", "sfddm/19/hidden", "sfddm/state/adapter.weight"} <= set(one)
    assert {"refined/19/diversity", "refined/16/penalty", "refined/state/ema.conv_in.weight"} <= set(one)
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("count", [2, 5, 9])
def test_every_row_belongs_to_one_process(count):
    rows = [list(range(count))[DistributedContext(rank, 2).rows(count)] for rank in range(2)]
    assert rows[0] + rows[1] == list(range(count))
    assert sum(DistributedContext(rank, 2).fraction(count) for rank in range(2)) == 1


def test_a_whole_run_of_two_processes_is_written_once_and_ends_near_that_of_one(tmp_path):
    settings = [word for setting in TINY for word in ("--set", setting)]
    arguments = ["-m", "rdd_edge", "distill", "--device", "cpu", "--threads", "1", "--save-seconds", "0", *settings]
    done = run([*TORCHRUN, *arguments, "--out", str(tmp_path / "two")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the student is") == 1
    distill(tiny(), tmp_path / "one", device="cpu")
    names = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*")}
    assert {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*")} - {
        Path(".state")
    } == names - {Path(".state")}
    # float32: rounding grows from step to step, but stays far below what the training changed.
    started = build_unet(tiny().network.unet((1, 8, 8), None), generator(0, "teacher/weights", 0).initial_seed())
    one, two = (load_file(tmp_path / run / "teacher/diffusion_pytorch_model.safetensors") for run in ("one", "two"))
    before = started.state_dict()
    moved = max(float((one[key] - before[key]).abs().max()) for key in one)
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 0.1 * moved
    one, two = (load_file(tmp_path / run / "extractor/model.safetensors") for run in ("one", "two"))
    for key, expected in one.items():
        torch.testing.assert_close(two[key], expected, rtol=1e-2, atol=2e-3)


def test_a_batch_smaller_than_the_number_of_processes_is_refused_before_training(tmp_path):
    settings = [word for setting in [*TINY, "pd.batch=1"] for word in ("--set", setting)]
    done = run([*TORCHRUN, "-m", "rdd_edge", "distill", "--device", "cpu", "--out", str(tmp_path / "run"), *settings])
    assert done.returncode != 0
    assert "pd.batch is 1 and there are 2 processes: each needs at least one image" in done.stderr
    assert not (tmp_path / "run").exists()


def test_one_process_refuses_nothing():
    DistributedContext().require("pd.batch", 1)
    with pytest.raises(UsageError):
        DistributedContext(0, 3).require("pd.batch", 2)
