"""Single-fold distillation: its subsequences, its sampler beside diffusers', its two terms, whole runs."""

import diffusers
import pytest
import torch
import torch.nn.functional as F
from networks import small_unet
from tiny import Recorder, tiny, train, weights

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import denoiser
from rdd_edge.diffusion.samplers import sample
from rdd_edge.diffusion.sampling import sample_images, sampling_steps
from rdd_edge.diffusion.schedule import network_time
from rdd_edge.diffusion.subsequence import (
    even_subsequence,
    noise_times,
    own_times,
    sample_subsequence,
    subsequence_scheduler,
)
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.stages.sfddm import expose_hidden, with_hidden
from rdd_edge.errors import UsageError
from rdd_edge.portable.noise import normals


def test_even_subsequences_end_at_the_teachers_steps_and_need_not_divide_them():
    assert even_subsequence(4, 32) == (8, 16, 24, 32)
    assert even_subsequence(5, 32) == (6, 13, 19, 26, 32)
    for steps in range(1, 33):
        assert len(noise_times(even_subsequence(steps, 32), 32)) == steps


@pytest.mark.parametrize(
    ("subsequence", "says"),
    [((1, 5, 4, 32), "does not increase"), ((0, 32), "does not increase"), ((5, 5, 32), "does not increase"),
     ((1, 5), "must end at the teacher's 32")],
)  # fmt: skip
def test_a_subsequence_that_is_none_is_refused(subsequence, says):
    with pytest.raises(UsageError, match=says):
        noise_times(subsequence, 32)


def test_more_steps_than_the_teachers_are_refused():
    with pytest.raises(UsageError, match="not between 1 and the teacher's 32"):
        even_subsequence(33, 32)


def fake_network(z: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    return 1.3 * torch.tanh(z * (1 + timestep.view(-1, 1, 1, 1) / 500) + 0.2)


@pytest.mark.parametrize(
    ("subsequence", "teacher_steps"),
    [((32,), 32), ((1, 5, 20, 32), 32), ((10, 20, 30), 30), ((*range(3, 20), 40), 40), ((1, 2, 3, 4, 5, 6, 64), 64)],
)
def test_diffusers_samples_the_student_as_we_do(subsequence, teacher_steps):
    times = noise_times(subsequence, teacher_steps)
    scheduler = diffusers.DDIMScheduler.from_config(subsequence_scheduler(times))
    scheduler.set_timesteps(len(times))
    assert scheduler.timesteps.tolist() == [round(1000 * own) - 1 for own in reversed(own_times(len(times)))]
    z = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = z
    for timestep in scheduler.timesteps:
        x = fake_network(theirs, timestep[None])
        theirs = scheduler.step(x, timestep, theirs, use_clipped_model_output=True).prev_sample
    ours = sample_subsequence(lambda z_t, t: fake_network(z_t, network_time(t)), z, times)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_on_an_even_grid_the_sampler_is_the_methods_own():
    z = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    predict = lambda z_t, t: fake_network(z_t, network_time(t))  # noqa: E731
    torch.testing.assert_close(sample_subsequence(predict, z, (0.25, 0.5, 0.75, 1.0)), sample(predict, z, 4))


def test_the_hidden_map_is_what_the_output_convolution_is_given():
    unet, z, t = small_unet(), torch.randn(2, 1, 8, 8), torch.tensor([0.3, 1.0])
    expected = denoiser(unet)(z, t)
    names = list(unet.state_dict())
    x, hidden = with_hidden(expose_hidden(unet), z, t, None)
    assert hidden.shape == (2, 32, 8, 8)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(F.conv2d(hidden, unet.conv_out.weight, unet.conv_out.bias, padding=1), x)
    assert list(unet.state_dict()) == names


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "base"
    distill(tiny(), out, device="cpu", until="teacher")
    return out


def sfddm(*more: str, **options):
    from tiny import TINY

    return resolve("digits", method="sfddm", settings=[*TINY, *more], **options)


@pytest.mark.parametrize(
    ("options", "more", "steps"),
    [({"sfddm_steps": 3}, (), 3), ({"subsequence": "1,5,16"}, ("sfddm.start=teacher",), 3), ({}, (), 1)],
)
def test_a_run_starts_from_anothers_teacher_and_ends_with_its_student(base, tmp_path, options, more, steps):
    reporter = Recorder()
    out = tmp_path / "run"
    train(sfddm(*more, **options), out, reporter, start_from=base, device="cpu")
    refined = [("refined", 0)] if steps == 1 else []
    assert reporter.stages == [(f"student-{steps}", 0), *refined]
    assert read_checkpoint(out).folder.name == reporter.stages[-1][0]
    found = read_checkpoint(out / f"student-{steps}")
    assert weights(out)[f"student-{steps}"] != weights(base)["teacher"]
    assert found.card.method == "sfddm"
    assert found.card.sampling_steps == steps == len(found.card.noise_times)
    assert sample_images(found, 4, sampling_steps(found, None), 0).std() > 1
    with pytest.raises(UsageError, match="leave --steps out"):
        sampling_steps(found, steps + 1)
    unet = diffusers.UNet2DModel.from_pretrained(found.folder, low_cpu_mem_usage=False)
    scheduler = diffusers.DDIMScheduler.from_pretrained(found.folder)
    scheduler.set_timesteps(steps)
    z = torch.from_numpy(normals(0, range(4), found.image_shape))
    theirs = z
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            prediction = unet(theirs, timestep).sample
            theirs = scheduler.step(prediction, timestep, theirs, use_clipped_model_output=True).prev_sample
    ours = sample_subsequence(denoiser(found.load()), z, found.card.noise_times)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-4)


def test_a_student_of_another_width_matches_through_a_map_that_is_discarded(base, tmp_path):
    (tmp_path / "small.json").write_text('{"channels": [4, 8], "blocks": 1, "groups": 4}')
    chosen = sfddm("distillation.steps=25", sfddm_steps=2, student_config=tmp_path / "small.json")
    distill(chosen, tmp_path / "run", start_from=base, device="cpu")
    assert read_checkpoint(tmp_path / "run").config["block_out_channels"] == [4, 8]
    assert not any("adapter" in name for name in read_checkpoint(tmp_path / "run").load().state_dict())


def test_a_student_on_an_even_grid_from_the_teachers_weights_has_nothing_to_learn(base, tmp_path):
    """ᾱ′ and both times are the teacher's own: SFDDM is then DDIM in T′ steps."""
    distill(sfddm("sfddm.start=teacher", sfddm_steps=1), tmp_path / "run", start_from=base, device="cpu")
    assert weights(tmp_path / "run")["student-1"] == weights(base)["teacher"]


def test_refusals_come_before_any_folder(tmp_path):
    with pytest.raises(UsageError, match="does not increase"):
        distill(sfddm(subsequence="5,1,16"), tmp_path / "run")
    with pytest.raises(UsageError, match="need --method sfddm"):
        resolve("digits", sfddm_steps=2)
    with pytest.raises(UsageError, match="not a list of whole numbers"):
        resolve("digits", method="sfddm", subsequence="1,x")
    with pytest.raises(UsageError, match="3 indices does not fit 2 steps"):
        resolve("digits", method="sfddm", sfddm_steps=2, subsequence="1,2,32")
    assert not (tmp_path / "run").exists()
