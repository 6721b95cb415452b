"""Grids of samples during training: what they show, when they are drawn, and that they do not change the weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, Killed, KilledAt, tiny, train, weights

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import build_unet, denoiser
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.distillation.batches import ImageBatches
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.sample_grids import grid_images, is_grid_step
from rdd_edge.distillation.stages.base import DiffusionStage, frozen_copy
from rdd_edge.distillation.stages.teacher import TeacherStage
from rdd_edge.drawing.grid import grid_png
from rdd_edge.portable.noise import normals, to_uint8

MORE = ("conditional=true", "network.dropout=0.3", "first_steps=4", "base_steps=2")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    distill(tiny(*MORE), out, device="cpu")
    return out


def grids(run) -> set[str]:
    return {path.name for path in (run / "logs").glob("*.png")}


def test_a_run_that_was_killed_and_drew_has_the_weights_of_one_that_did_neither(plain, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny(*MORE), run, KilledAt("teacher", 6), device="cpu", tensorboard=True, save_seconds=0)
    distill(tiny(*MORE), run, device="cpu", tensorboard=True)
    assert weights(run) == weights(plain)
    assert not grids(plain)
    quarters = {"teacher": (1, 3, 5, 7), "student-2": (1, 2, 3, 4), "student-1": (1, 2, 4, 5), "refined": (1, 2, 3, 4)}
    assert grids(run) == {f"{stage}-{step:08d}.png" for stage, steps in quarters.items() for step in steps}
    events = EventAccumulator(str(run / "tensorboard" / "student-1"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [1, 2, 4, 5]


def test_the_last_grid_is_what_the_finished_checkpoint_draws(plain, tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    distill(tiny(*MORE), run, device="cpu", tensorboard=True)
    for stage, steps, last in (("refined", 1, 4), ("student-1", 1, 5), ("student-2", 2, 4), ("teacher", 16, 7)):
        images = sample_images(read_checkpoint(run / stage), 16, steps, 0)
        found = np.asarray(Image.open(run / "logs" / f"{stage}-{last:08d}.png")).astype(int)
        (run / "expected.png").write_bytes(grid_png(images))
        expected = np.asarray(Image.open(run / "expected.png")).astype(int)
        assert np.abs(found - expected).max() <= 1  # a batch of another size may round differently


@pytest.mark.parametrize("options", [{"sfddm_steps": 3}])
def test_sfddm_and_matching_draw_too(tmp_path, options):
    pytest.importorskip("tensorboard")
    (tmp_path / "small.json").write_text('{"channels": [4, 8], "blocks": 1, "groups": 4}')
    single = resolve("digits", method="sfddm", settings=[*TINY, "first_steps=8"], **options)
    distill(single, tmp_path / "sfddm", device="cpu", tensorboard=True)
    smaller = resolve("digits", settings=[*TINY, *MORE], student_config=tmp_path / "small.json")
    distill(smaller, tmp_path / "smaller", device="cpu", tensorboard=True, until="student-4")
    assert "student-3-00000005.png" in grids(tmp_path / "sfddm")
    assert "student-4-00000004.png" in grids(tmp_path / "smaller")


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 400, 20_000])
def test_grids_come_after_each_quarter_and_the_last_step(steps):
    found = [index for index in range(steps) if is_grid_step(index, steps)]
    assert len(found) == min(4, steps)
    assert found[-1] == steps - 1


def test_a_compiled_network_is_copied_plain_and_left_as_it_was():
    unet = build_unet(tiny().network.unet((1, 8, 8), None), 0).train()
    unet.compile(backend="eager")
    copied = frozen_copy(unet, {key: torch.zeros_like(value) for key, value in unet.state_dict().items()})
    assert unet.training and not copied.training
    assert copied._compiled_call_impl is None and unet._compiled_call_impl is not None
    z = torch.from_numpy(normals(0, range(2), (1, 8, 8)))
    assert denoiser(copied)(z, torch.ones(2)).abs().max() == 0
    assert denoiser(unet)(z, torch.ones(2)).abs().max() > 0


def test_of_more_channels_the_first_is_shown():
    from rdd_edge.data import load_images

    preset = tiny()
    data = ImageBatches(load_images("digits"), ComputeContext(torch.device("cpu")))
    stage = TeacherStage(build_unet(preset.network.unet((4, 8, 8), None), 0), preset.teacher, 5.0, data, 0, False)
    assert isinstance(stage, DiffusionStage)
    images = grid_images(stage, torch.device("cpu"))
    assert images.shape == (16, 8, 8, 1)
    z = torch.from_numpy(normals(0, range(16), (4, 8, 8)))
    assert np.array_equal(images[..., 0], to_uint8(stage.samples(z, None).numpy())[..., 0])
