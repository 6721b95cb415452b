"""The adversarial stage: losses beside their formulas, resuming, its place in a run, and what stops it."""

import pytest
import torch
from tiny import Killed, KilledAt, Recorder, tiny, train, weights

from rdd_edge.data import load_images
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import build_unet
from rdd_edge.distillation.batches import ImageBatches
from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import Refining, Training
from rdd_edge.distillation.losses.critics import critic_loss, generator_loss, gradient_penalty, new_critics
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.run_folder import stage_names
from rdd_edge.distillation.stages.refining import PATIENCE, RefiningStage
from rdd_edge.errors import TrainingError, UsageError
from rdd_edge.evaluation.sources import evaluation_sources
from rdd_edge.metrics.networks import Classifier, ExtractorConfig

SHAPE = (1, 8, 8)
CPU = ComputeContext(torch.device("cpu"))


def extractor():
    config = ExtractorConfig(
        name="x", architecture="densenet", widths=(1, 2), growth=4, stem=4, image_shape=SHAPE, classes=10
    )
    torch.manual_seed(0)
    return Classifier(config).features.eval().requires_grad_(False)


def stage(classes=None, **settings):
    training = Training(steps=40, batch=8, rate=settings.pop("rate", 1e-3), ema=0.9)
    unet = build_unet(tiny().network.unet(SHAPE, classes), 1)
    critics = new_critics(extractor(), SHAPE, 8, classes, 2)
    data = ImageBatches(load_images("digits"), CPU)
    return RefiningStage(
        unet,
        None,
        critics,
        Refining(training=training, critic_rate=settings.pop("critic_rate", 4e-3), **settings),
        data,
        0,
        classes is not None,
    )


def steps(trained, count):
    for index in range(count):
        trained.step(index, log=True)


def test_losses_are_the_hinge_over_images_and_pixels_summed_over_critics():
    real = [torch.tensor([[[[2.0, 0.5]]]]), torch.tensor([[[[-1.0]]]])]
    fake = [torch.tensor([[[[-3.0, 1.0]]]]), torch.tensor([[[[0.5]]]])]
    assert critic_loss(real, fake).item() == pytest.approx((0 + 0.5) / 2 + (0 + 2) / 2 + 2 + 1.5)
    assert generator_loss(fake).item() == pytest.approx(1.0 - 0.5)


def test_penalty_is_half_the_squared_gradient_at_the_images():
    """D(x) = Σ w x has the gradient w at every image."""
    torch.manual_seed(0)
    x, w = torch.randn(5, 1, 2, 3, requires_grad=True), torch.randn(1, 2, 3)
    logits = [(x * w).sum((1, 2, 3), keepdim=True)]
    torch.testing.assert_close(gradient_penalty(logits, x), w.square().sum() / 2)


def test_critics_see_the_pixels_and_three_depths_and_train_no_extractor():
    critics = new_critics(extractor(), SHAPE, 8, None, 0)
    maps = critics.maps(torch.zeros(2, *SHAPE))
    assert maps[0].shape[1] == 1 and len(maps) == 4
    assert torch.equal(maps[-1], critics._extractor[0](torch.zeros(2, *SHAPE)))
    assert all(name.startswith("critics.") for name, _ in critics.named_parameters())


def test_a_label_changes_the_logits_of_a_conditional_critic():
    critics = new_critics(extractor(), SHAPE, 8, 10, 0)
    maps = critics.maps(torch.randn(2, *SHAPE))
    one, other = (critics(maps, torch.tensor([label, 3])) for label in (1, 2))
    for a, b in zip(one, other, strict=True):
        assert not torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_a_loaded_state_continues_to_the_same_weights():
    whole = stage(classes=10)
    for index in range(6):
        whole.step(index, log=index == 5)
        if index == 2:
            state = {name: value.clone() for name, value in whole.state().items()}
    resumed = stage(classes=10)
    resumed.load(state)
    for index in range(3, 6):
        resumed.step(index, log=False)
    expected, found = whole.state(), resumed.state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    start = build_unet(tiny().network.unet(SHAPE, 10), 1).state_dict()
    assert not torch.equal(whole.weights()["conv_in.weight"], start["conv_in.weight"])


def test_the_student_is_held_to_its_own_images():
    """With a weight that outweighs the critics by far, its images stay nearly where they were."""
    free, held = stage(anchor=0.0), stage(anchor=1e4)
    logged = [[one.step(index, log=True)["anchor"].item() for index in range(8)] for one in (free, held)]
    assert logged[0][0] == logged[1][0] == 0.0  # before the first step
    assert 0 < logged[1][-1] < logged[0][-1]


def test_critics_that_have_won_stop_the_stage():
    won = stage(rate=1e-12, critic_rate=0.02, penalty=0.0)
    with pytest.raises(TrainingError, match=r"stage refined failed at step \d+: the critics tell every generated"):
        steps(won, 600)


def test_images_that_have_become_one_stop_the_stage():
    collapsed = stage()
    last = collapsed.network.conv_out
    with torch.no_grad():
        last.weight.zero_()
    last.requires_grad_(False)
    with pytest.raises(TrainingError, match=f"failed at step {PATIENCE - 1}: the generated images have lost their div"):
        steps(collapsed, PATIENCE)


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("pd", ("extractor", "judge", "teacher", "student-2", "student-1", "refined")),
        ("sfddm", ("extractor", "judge", "teacher", "student-1", "refined")),
    ],
)
def test_a_run_ends_refined_after_any_method(tmp_path, method, names):
    preset = tiny("first_steps=4", "base_steps=2", method=method)
    assert stage_names(preset) == names
    with pytest.raises(Killed):
        train(preset, tmp_path / "run", KilledAt("refined", 3), save_seconds=0.0)
    train(preset, tmp_path / "run", Recorder())
    train(preset, tmp_path / "whole", Recorder())
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    found = read_checkpoint(tmp_path / "run")
    assert found.folder.name == "refined" and found.card.method == f"{method}+refined"
    assert found.card.sampling_steps == 1
    assert weights(tmp_path / "run")["refined"] != weights(tmp_path / "run")["student-1"]


def test_without_refining_the_run_ends_with_its_student(tmp_path):
    assert "refined" not in stage_names(resolve("digits", refine=False))
    assert "refined" not in stage_names(resolve("digits", method="sfddm", sfddm_steps=4))


def test_without_a_judge_a_refined_run_names_no_extractor_of_its_own(tmp_path):
    """The critics have learned on the extractor, so its distance would flatter the student."""
    preset = tiny("first_steps=2", "base_steps=2", "judge=null", "judge_training=null")
    distill(preset, tmp_path / "run", until="extractor")
    with pytest.raises(UsageError, match="has no judge, and its critics learned on its extractor"):
        evaluation_sources(tmp_path / "run", None, None)
    distill(preset.model_copy(update={"refining": None}), tmp_path / "plain", until="extractor")
    assert evaluation_sources(tmp_path / "plain", None, None)[1].name == "digits_densenet"


def test_a_given_student_is_refined_without_a_teacher(tmp_path):
    run = tmp_path / "run"
    distill(tiny("first_steps=2", "base_steps=2"), run, until="student-1")
    given = tiny().model_copy(update={"student_folder": str(run / "student-1")})
    distill(given, tmp_path / "refined")
    assert stage_names(given) == ("extractor", "judge", "refined")
    assert read_checkpoint(tmp_path / "refined").card.method == "rdd+refined"
    with pytest.raises(UsageError, match="is a teacher of any number of sampling steps"):
        distill(given.model_copy(update={"student_folder": str(run / "teacher")}), tmp_path / "other")
    with pytest.raises(UsageError, match=r"the student .* is not class-conditional"):
        distill(given.model_copy(update={"conditional": True}), tmp_path / "other")
