"""States in shards, divergence, scalars for TensorBoard, and the options that only change the speed."""

import pytest
import torch
from tiny import Killed, KilledAt, as_rank, tiny, train, weights

from rdd_edge.diffusion.network import build_unet, denoiser
from rdd_edge.distillation.compute_context import ComputeContext, generator
from rdd_edge.distillation.config import Compute
from rdd_edge.distillation.guard import DivergenceGuard
from rdd_edge.distillation.presets import PRESETS, resolve
from rdd_edge.distillation.run import distill
from rdd_edge.distillation.state import load_latest, save_state
from rdd_edge.errors import TrainingError


def test_a_state_in_shards_is_a_round_trip_and_no_shard_is_larger_than_asked(tmp_path):
    tensors = {"a": torch.randn(10, 7), "b": torch.arange(5), "c": torch.tensor(3.0), "d": torch.randn(300)}
    save_state(tmp_path, 4, tensors, shard_bytes=128)
    files = list((tmp_path / "step-00000004").glob("*.safetensors"))
    assert len(files) >= 280 // 128 + 1200 // 128
    for file in files:
        header = int.from_bytes(file.read_bytes()[:8], "little")
        assert file.stat().st_size - 8 - header <= 128
    found = load_latest(tmp_path)
    assert found is not None
    step, loaded, warnings = found
    assert (step, warnings, set(loaded)) == (4, [], set(tensors))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_missing_shard_is_passed_over(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, step, {"a": torch.full((100,), float(step))}, shard_bytes=128)
    (tmp_path / "step-00000002" / "state-00001.safetensors").unlink()
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 1
    assert len(found[2]) == 1


def test_an_exploding_term_is_named_and_a_term_that_joins_is_not():
    guard = DivergenceGuard("student-4")
    for index in range(10):
        guard.check(index, {"loss": 0.1, "cfd": 0.1, "cfd_grad_norm": 1.0, "m_p2p": None}, remember=True)
    joined = {"loss": 500.0, "cfd": 0.2, "cfd_grad_norm": 1.0, "m_p2p": 4e3, "m_p2p_grad_norm": 1.0}
    guard.check(10, joined, remember=True)
    with pytest.raises(TrainingError, match="stage student-4 diverged at step 11: cfd is 300"):
        guard.check(11, {**joined, "cfd": 300.0}, remember=True)
    with pytest.raises(TrainingError, match="m_p2p_grad_norm is inf"):
        guard.check(11, {**joined, "m_p2p_grad_norm": float("inf")}, remember=True)


def test_tensorboard_has_the_scalars_of_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny(), run, KilledAt("judge", 1), device="cpu", tensorboard=True)
    events = EventAccumulator(str(run / "tensorboard" / "extractor"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 5]


def test_half_precision_and_memory_order_stay_inside_the_network():
    unet = build_unet(tiny().network.unet((1, 8, 8), None), 0).eval()
    z, t = torch.randn(4, 1, 8, 8), torch.tensor([0.25, 0.5, 0.75, 1.0])
    plain = denoiser(unet)(z, t)
    context = ComputeContext(torch.device("cpu"), compute=Compute(bf16=True, channels_last=True))
    fast = denoiser(context.prepare(unet), None, context.autocast)(z, t)
    assert fast.dtype == torch.float32
    assert not torch.equal(fast, plain)
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.05)
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_killed_run_in_half_precision_ends_with_the_same_weights(tmp_path):
    fast = tiny("compute.bf16=true", "compute.channels_last=true")
    distill(fast, tmp_path / "whole", device="cpu")
    with pytest.raises(Killed):
        train(fast, tmp_path / "run", KilledAt("student-2", 4), device="cpu", save_seconds=0, shard_mb=1)
    distill(fast, tmp_path / "run", device="cpu")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize("name", PRESETS)
def test_pd_trains_its_last_students_twice_as_long_where_its_authors_do(name):
    rdd, pd = resolve(name), resolve(name, method="pd")
    assert [rdd.halving(k).steps for k in (8, 4, 2, 1)] == [rdd.pd.steps] + 3 * [rdd.distillation.steps]
    factors = [pd.halving(k).steps / pd.pd.steps for k in (8, 4, 2, 1)]
    if pd.pd_late:
        assert factors == [1, 1, 2, 2]
    else:
        assert [pd.halving(k) for k in (4, 2, 1)] == 3 * [pd.distillation]


@pytest.mark.parametrize(
    ("name", "side", "millions"), [("cifar10", 32, 35.7), ("cifar10-edge", 32, 9.0), ("imagenet64", 64, 116.5)]
)
def test_the_presets_networks_have_the_papers_size(name, side, millions):
    chosen = PRESETS[name]
    with torch.device("meta"):
        unet = build_unet(chosen.network.unet((3, side, side), 1000 if chosen.conditional else None), 0)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_noise_drawn_on_the_device_is_the_same_for_any_number_of_processes_and_leaves_other_draws_alone():
    def drawn(rank: int, size: int, on: bool) -> torch.Tensor:
        context = ComputeContext(torch.device("cpu"), Compute(device_noise=on))
        with as_rank(rank, size):
            return context.normals((10, 1, 16, 16), generator(0, "teacher", 3))

    whole = drawn(0, 1, on=True)
    assert torch.equal(whole, torch.cat([drawn(rank, 3, on=True) for rank in range(3)]))
    assert not torch.equal(whole, drawn(0, 1, on=False))
    assert abs(float(whole.mean())) < 0.1 and abs(float(whole.std()) - 1) < 0.1
    assert torch.equal(drawn(0, 1, on=False), torch.randn((10, 1, 16, 16), generator=generator(0, "teacher", 3)))


def test_an_extractor_is_compiled_as_one_graph():
    """torch.compile takes each layer of a plain nn.Sequential by itself, and after eight of different width none."""
    from torch._dynamo.testing import CompileCounter

    from rdd_edge.metrics.networks import ExtractorConfig, build_features

    config = ExtractorConfig(
        name="a", architecture="densenet", widths=(3, 3, 3, 3), growth=4, stem=8, image_shape=(3, 16, 16), classes=10
    )
    features = build_features(config).eval().requires_grad_(False)
    x = torch.randn(2, 3, 16, 16)
    expected = features(x)
    count = CompileCounter()
    features.compile(backend=count, dynamic=False)
    torch.testing.assert_close(features(x), expected)
    assert count.frame_count == 1


def test_a_data_set_lies_on_a_gpu_that_has_room_for_it(monkeypatch):
    """ImageNet at 64 pixels on a GPU of 80 GB, but not on one of 24."""
    from rdd_edge.distillation.batches import most_bytes

    imagenet = 1_281_167 * 64 * 64 * 3
    for free, fits in ((79 << 30, True), (23 << 30, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert (imagenet <= most_bytes(torch.device("cuda"))) == fits
    assert most_bytes(torch.device("cpu")) == 4 << 30


def test_the_average_is_that_of_its_formula():
    """EMA, weight by weight, in float64 from the weights after each step."""
    from rdd_edge.data import load_images
    from rdd_edge.distillation.batches import ImageBatches
    from rdd_edge.distillation.stages.teacher import TeacherStage

    chosen = tiny("teacher.ema=0.3")
    data = ImageBatches(load_images("digits"), ComputeContext(torch.device("cpu")))
    stage = TeacherStage(build_unet(chosen.network.unet((1, 8, 8), None), 0), chosen.teacher, 5.0, data, 0, False)
    average = {name: value.double() for name, value in stage.network.state_dict().items()}
    for index in range(6):
        stage.step(index, log=False)
        decay = min(0.3, (1 + index) / (10 + index))
        for name, value in stage.network.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * value.double()
        if index == 2:  # a loaded state continues
            state = {name: value.clone() for name, value in stage.state().items()}
            stage = TeacherStage(
                build_unet(chosen.network.unet((1, 8, 8), None), 1), chosen.teacher, 5.0, data, 0, False
            )
            stage.load(state)
    for name, value in stage.average.weights.items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-7)
