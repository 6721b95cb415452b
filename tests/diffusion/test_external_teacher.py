"""Foreign teachers of every kind: each conversion against diffusers' own, runs from them, and what is refused."""

import json

import diffusers
import pytest
import torch
from networks import small_unet
from tiny import Recorder, tiny, train

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.external_teacher import foreign_denoiser, read_foreign
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.diffusion.schedule import scheduler_config
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.trainer import OutOfTime
from rdd_edge.errors import CorruptError, MissingError, UsageError

OURS = {key: scheduler_config()[key] for key in ("trained_betas", "num_train_timesteps")}
SCHEDULES = {
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "ours": OURS,
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def folder_of(path, schedule="linear", prediction="epsilon", **unet):
    small_unet(seed=3, **unet).save_pretrained(path)
    diffusers.DDPMScheduler(**SCHEDULES[schedule], prediction_type=prediction).save_pretrained(path)
    return path


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_x_at_the_schedules_own_indices_is_diffusers_own(tmp_path, schedule, prediction):
    foreign = read_foreign(folder_of(tmp_path, schedule, prediction))
    unet = foreign.checkpoint.load()
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path, clip_sample=False)
    scheduler.set_timesteps(1000)
    z = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for index in (0, 17, 400, 900):
        t = foreign.schedule.times[index].float()[None]
        with torch.no_grad():
            theirs = scheduler.step(unet(z, index).sample, index, z).pred_original_sample
            ours = foreign_denoiser(unet, foreign.schedule)(z, t)
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


def test_between_indices_the_index_is_fractional_and_outside_it_is_clamped(tmp_path):
    schedule = read_foreign(folder_of(tmp_path, "ours", "v_prediction")).schedule
    index, own = schedule.locate(torch.tensor([0.0, 0.0005, 0.5, 0.50025, 1.0]))
    torch.testing.assert_close(index, torch.tensor([0.0, 0.0, 499.0, 499.25, 999.0]), rtol=0, atol=2e-3)
    torch.testing.assert_close(own, torch.tensor([0.001, 0.001, 0.5, 0.50025, 1.0]), rtol=0, atol=1e-5)
    linear = read_foreign(folder_of(tmp_path / "linear", "linear", "epsilon")).schedule
    index, own = linear.locate(torch.tensor([1.0]))
    assert index.item() == 999.0
    assert 0.99 < own.item() < 1.0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_that_says_all_gives_the_image_back(tmp_path, prediction):
    """The conversion's algebra: from the true ε, v or x of z_t comes x."""
    from rdd_edge.diffusion.external_teacher import to_x
    from rdd_edge.diffusion.schedule import add_noise, alpha_sigma

    draws = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(4, 1, 8, 8, generator=draws, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=torch.float64)
    alpha, sigma = (c.view(-1, 1, 1, 1) for c in alpha_sigma(t))
    output = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x, "sample": x}[prediction]
    torch.testing.assert_close(to_x(prediction, output, add_noise(x, noise, t), t), x)


def test_an_x_predicting_teacher_of_our_schedule_is_left_as_it_is(tmp_path):
    """At t = 1 and between: the same network asked the same question, so the stage finds no error to mend."""
    foreign = read_foreign(folder_of(tmp_path, "ours", "sample"))
    unet, z = foreign.checkpoint.load(), torch.randn(3, 1, 8, 8)
    t = torch.tensor([0.25, 0.5, 1.0])
    with torch.no_grad():
        torch.testing.assert_close(
            foreign_denoiser(unet, foreign.schedule)(z, t), unet(z, 1000 * t - 1).sample, rtol=0, atol=1e-3
        )


@pytest.mark.parametrize(("schedule", "prediction"), [("linear", "epsilon"), ("cosine", "v_prediction")])
def test_a_run_turns_it_into_a_teacher_of_ours_and_halves_it(tmp_path, schedule, prediction):
    theirs = folder_of(tmp_path / "theirs", schedule, prediction)
    reporter = Recorder()
    chosen = tiny("first_steps=2", "base_steps=2", "pd.steps=30", method="pd").model_copy(
        update={"teacher_folder": str(theirs)}
    )
    train(chosen, tmp_path / "run", reporter, device="cpu")
    assert [name for name, _ in reporter.stages] == ["extractor", "judge", "teacher", "student-1", "refined"]
    lines = [json.loads(line) for line in (tmp_path / "run/logs/teacher.jsonl").read_text().splitlines()]
    assert set(lines[-1]) == {"step", "loss", "grad_norm"}
    assert read_checkpoint(tmp_path / "run/teacher").card.method == "conversion"
    assert read_checkpoint(tmp_path / "run").config["block_out_channels"] == [32, 64]


def test_a_run_goes_on_only_with_the_schedule_it_began_with(tmp_path):
    theirs = folder_of(tmp_path / "theirs", "linear", "epsilon")
    chosen = tiny("first_steps=2", "base_steps=2", method="pd").model_copy(update={"teacher_folder": str(theirs)})

    def stopped_at_once():
        with pytest.raises(OutOfTime):
            distill(chosen, tmp_path / "run", device="cpu", deadline=0.0)

    stopped_at_once()
    stopped_at_once()
    file = theirs / "scheduler_config.json"
    file.write_text(file.read_text().replace("linear", "scaled_linear"))
    with pytest.raises(UsageError, match="was started with teacher_scheduler_sha256="):
        distill(chosen, tmp_path / "run", device="cpu", deadline=0.0)
    older = json.loads((tmp_path / "run/run.json").read_text())
    del older["teacher_scheduler_sha256"]
    (tmp_path / "run/run.json").write_text(json.dumps(older))
    stopped_at_once()


def test_a_foreign_folder_is_sampled_on_its_own_schedule(tmp_path):
    checkpoint = read_checkpoint(folder_of(tmp_path, "cosine", "v_prediction"))
    images = sample_images(checkpoint, 4, 4, 0)
    assert images.shape == (4, 8, 8, 1)
    as_if_x = read_checkpoint(folder_of(tmp_path / "x", "ours", "sample"))
    assert (images != sample_images(as_if_x, 4, 4, 0)).any()


def test_a_teacher_that_does_not_fit_is_refused_before_any_training(tmp_path):
    def run(path):
        distill(tiny().model_copy(update={"teacher_folder": str(path)}), tmp_path / "run")

    with pytest.raises(UsageError, match=r"1x16x16 .* and digits has 1x8x8"):
        run(folder_of(tmp_path / "large", sample_size=16))
    with pytest.raises(UsageError, match=r"3x8x8 .* and digits has 1x8x8"):
        run(folder_of(tmp_path / "colour", in_channels=3, out_channels=3))
    with pytest.raises(UsageError, match="takes 1 channels and gives 2"):
        run(folder_of(tmp_path / "variance", out_channels=2))
    with pytest.raises(UsageError, match="conditional on 10 classes"):
        run(folder_of(tmp_path / "classes", num_class_embeds=10))
    with pytest.raises(MissingError, match="there is no checkpoint"):
        run(tmp_path / "nowhere")
    bare = folder_of(tmp_path / "bare")
    (bare / "scheduler_config.json").write_text('{"_class_name": "ScoreSdeVeScheduler"}')
    with pytest.raises(UsageError, match="has no betas"):
        run(bare)
    (bare / "scheduler_config.json").write_text('{"beta_schedule": "nonsense"}')
    with pytest.raises(CorruptError, match="not a schedule of betas"):
        run(bare)
    (bare / "scheduler_config.json").unlink()
    with pytest.raises(MissingError, match="needs the configuration of its scheduler"):
        run(bare)
    assert not (tmp_path / "run").exists()
