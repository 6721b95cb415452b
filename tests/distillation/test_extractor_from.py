"""An extractor that is given: one of ours, or torchvision's weights, whose networks are written out again here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import run
from tiny import TINY, Recorder, tiny, train
from torch import Tensor
from torchvision_weights import Tensors, densenet, resnet

from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run_folder import stage_names
from rdd_edge.errors import CorruptError, MissingError, UsageError
from rdd_edge.metrics.classifiers import copy_classifier, load_feature_network

SHORT = [*TINY, "first_steps=2", "base_steps=2"]
UNREFINED = [setting for setting in SHORT if not setting.startswith("refining")]
SHAPE = (3, 64, 64)
RESNET = resnet((1, 1, 1, 1), 1)


def normed(x: Tensor, t: Tensors, name: str) -> Tensor:
    return F.batch_norm(x, *(t[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))


def stem(x: Tensor, t: Tensors, conv: str, norm: str) -> Tensor:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((x + 1) / 2 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    return F.max_pool2d(normed(F.conv2d(x, t[f"{conv}.weight"], stride=2, padding=3), t, norm).relu(), 3, 2, 1)


def resnet_map(x: Tensor, t: Tensors, depths: tuple[int, ...], expansion: int) -> Tensor:
    """The map after layer4, as torchvision/models/resnet.py computes it."""
    x = stem(x, t, "conv1", "bn1")
    for level, depth in enumerate(depths):
        for index in range(depth):
            name, stride = f"layer{level + 1}.{index}", 2 if level and not index else 1
            y = x
            for number in range(1, 4 if expansion == 4 else 3):
                weight = t[f"{name}.conv{number}.weight"]
                moves = stride if number == (2 if expansion == 4 else 1) else 1
                y = normed(
                    F.conv2d(y if number == 1 else y.relu(), weight, None, moves, weight.shape[-1] // 2),
                    t,
                    f"{name}.bn{number}",
                )
            if f"{name}.downsample.0.weight" in t:
                x = normed(F.conv2d(x, t[f"{name}.downsample.0.weight"], None, stride), t, f"{name}.downsample.1")
            x = (x + y).relu()
    return x


def densenet_map(x: Tensor, t: Tensors, depths: tuple[int, ...]) -> Tensor:
    """relu(norm5), as torchvision/models/densenet.py computes it."""
    x = stem(x, t, "features.conv0", "features.norm0")
    for block, depth in enumerate(depths, 1):
        for index in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{index}"
            y = F.conv2d(normed(x, t, f"{name}.norm1").relu(), t[f"{name}.conv1.weight"])
            x = torch.cat([x, F.conv2d(normed(y, t, f"{name}.norm2").relu(), t[f"{name}.conv2.weight"], padding=1)], 1)
        if block < len(depths):
            name = f"features.transition{block}"
            x = F.avg_pool2d(F.conv2d(normed(x, t, f"{name}.norm").relu(), t[f"{name}.conv.weight"]), 2)
    return normed(x, t, "features.norm5").relu()


@pytest.mark.parametrize("kind", ["basic", "bottleneck", "dense", "old dense"])
def test_torchvisions_weights_give_torchvisions_maps(tmp_path: Path, kind: str) -> None:
    depths = (2, 1, 2, 1)
    x = torch.rand(2, *SHAPE) * 2 - 1
    if kind.endswith("dense"):
        tensors = densenet(depths)
        expected = densenet_map(x, tensors, depths)
    else:
        expansion = 4 if kind == "bottleneck" else 1
        tensors = resnet(depths, expansion)
        expected = resnet_map(x, tensors, depths, expansion)
    if kind == "old dense":  # as in torchvision's own files, which are from 2017
        tensors = {re.sub(r"(layer\d+\.(?:norm|conv))([12])", r"\1.\2", name): t for name, t in tensors.items()}
        tensors = {name: t for name, t in tensors.items() if "num_batches" not in name}
    torch.save(tensors, tmp_path / "Net-1a2b.pth")
    copy_classifier(tmp_path / "Net-1a2b.pth", tmp_path / "extractor", SHAPE)
    name, network = load_feature_network(tmp_path / "extractor")
    assert name == "net_1a2b"
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_gray_images_are_three_equal_planes(tmp_path: Path) -> None:
    torch.save(RESNET, tmp_path / "net.pth")
    copy_classifier(tmp_path / "net.pth", tmp_path / "extractor", (1, 32, 32))
    network = load_feature_network(tmp_path / "extractor")[1]
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    torch.testing.assert_close(network(x), network(x.expand(-1, 3, -1, -1)))


def test_a_runs_extractor_trains_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, which then continues it without the option."""
    train(tiny("first_steps=2", "base_steps=2"), tmp_path / "base", Recorder(), until="extractor")
    words = [word for setting in SHORT for word in ("--set", setting)]
    command = ("distill", *words, "--seed", 5, "--extractor-from", tmp_path / "base", "--out", tmp_path / "run")
    code, out, err = run(monkeypatch, capsys, *command)
    assert code == 0, err
    assert not [line for line in (out + err).splitlines() if line.startswith("extractor")]
    for file in ("config.json", "model.safetensors"):
        ours, theirs = (tmp_path / folder / "extractor" / file for folder in ("run", "base"))
        assert ours.read_bytes() == theirs.read_bytes()
    code, _, err = run(monkeypatch, capsys, "distill", "--out", tmp_path / "run")
    assert code == 0, err


def test_torchvisions_weights_train_a_run(tmp_path: Path) -> None:
    """Losses and critics on them; images of 8 x 8 are small enough to leave one pixel of the last map."""
    torch.save(RESNET, tmp_path / "net.pth")
    preset = resolve("digits", extractor_from=tmp_path / "net.pth", settings=SHORT)
    reporter = Recorder()
    train(preset, tmp_path / "run", reporter, device="cpu")
    assert [stage for stage, _ in reporter.stages][:2] == ["judge", "teacher"]
    assert (tmp_path / "run/refined").is_dir()


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda path: None, MissingError, "there is no extractor"),
        (lambda path: path.mkdir(), MissingError, "is not an extractor: it has no model.safetensors"),
        (lambda path: torch.save({"weight": torch.zeros(2)}, path), CorruptError, "is no ResNet or DenseNet"),
        (lambda path: torch.save({"state_dict": {}}, path), CorruptError, "is not a file of tensors by name"),
        (lambda path: torch.save(densenet((1, 1, 1, 1)), path), UsageError, "those of 8 pixels are too small"),
        (lambda path: torch.save({**RESNET, "x": torch.zeros(1)}, path), CorruptError, "has a tensor x"),
    ],
)  # fmt: skip
def test_what_is_no_extractor_is_a_sentence(tmp_path: Path, make, kind, says: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "net.pth")
    preset = resolve("digits", extractor_from=tmp_path / "net.pth", settings=SHORT)
    with pytest.raises(kind, match=says):
        train(preset, tmp_path / "run", Recorder(), device="cpu")
    assert not (tmp_path / "run").exists()


def test_an_extractor_for_other_images_is_refused(tmp_path: Path) -> None:
    torch.save(RESNET, tmp_path / "net.pth")
    copy_classifier(tmp_path / "net.pth", tmp_path / "own", (1, 32, 32))
    preset = resolve("digits", extractor_from=tmp_path / "own", settings=SHORT)
    with pytest.raises(UsageError, match="is for images of 1x32x32, and the data are 1x8x8"):
        train(preset, tmp_path / "run", Recorder(), device="cpu")


def test_a_method_without_features_trains_no_extractor(tmp_path: Path) -> None:
    for method in ("pd", "pd-lpips", "sfddm"):
        alone = resolve("digits", method=method, refine=False)
        assert stage_names(alone)[:2] == ("judge", "teacher")
        assert stage_names(resolve("digits", method=method))[0] == "extractor"  # for the critics
    preset = resolve("digits", method="pd", refine=False, extractor_from=tmp_path, settings=UNREFINED)
    with pytest.raises(UsageError, match="--extractor-from has no effect"):
        train(preset, tmp_path / "run", Recorder(), device="cpu")


def test_a_run_from_one_without_an_extractor_trains_its_own(tmp_path: Path) -> None:
    train(resolve("digits", method="pd", refine=False, settings=UNREFINED), tmp_path / "pd", Recorder(), device="cpu")
    reporter = Recorder()
    preset = resolve("digits", method="rcfd", refine=False, settings=UNREFINED)
    train(preset, tmp_path / "rcfd", reporter, start_from=tmp_path / "pd", device="cpu")
    assert [stage for stage, _ in reporter.stages] == ["extractor", "student-1"]
