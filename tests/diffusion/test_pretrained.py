"""A model that ships is found by its name wherever a command takes a checkpoint, and loads in diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import run
from networks import small_unet

import rdd_edge
from rdd_edge.dependencies import import_diffusers
from rdd_edge.diffusion import pretrained
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.rounding import rounded
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.diffusion.saving import save_checkpoint, save_rounded
from rdd_edge.errors import UsageError
from rdd_edge.metrics.classifiers import load_classifier


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with one model, `tiny-edge`, of random weights in bfloat16."""
    folder = tmp_path / "pretrained"
    found = save_checkpoint(tmp_path / "full", small_unet(), role="student", method="random", sampling_steps=1)
    save_rounded(found, folder / "tiny-edge", "bfloat16")
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder / "tiny-edge"


def test_weights_in_half_precision_load_as_float32_here_and_in_diffusers(shipped: Path, tmp_path: Path) -> None:
    assert (shipped / "diffusion_pytorch_model.safetensors").stat().st_size < 0.52 * (
        tmp_path / "full" / "diffusion_pytorch_model.safetensors"
    ).stat().st_size
    ours = read_checkpoint(Path("tiny-edge")).load()
    theirs = import_diffusers().UNet2DModel.from_pretrained(str(shipped))
    original = read_checkpoint(tmp_path / "full").load().state_dict()
    for name, tensor in ours.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, original[name].to(torch.bfloat16).float())
        assert torch.equal(tensor, theirs.state_dict()[name].float())
    z = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(theirs.float()(z, 999).sample, ours(z, 999).sample)


def test_the_file_says_nothing_of_the_machine_that_made_it(shipped: Path) -> None:
    assert "_name_or_path" not in json.loads((shipped / "config.json").read_text())


def test_every_command_that_takes_a_checkpoint_takes_its_name(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rdd_edge.metrics.classifiers import save_classifier
    from rdd_edge.metrics.networks import Classifier, ExtractorConfig

    config = ExtractorConfig(name="tiny_cnn", architecture="cnn", widths=(4, 8), image_shape=(1, 8, 8), classes=10)
    save_classifier(tmp_path / "judge", Classifier(config))
    assert run(monkeypatch, capsys, "sample", "tiny-edge", "--n", 4, "--out", "grid.png")[0] == 0
    judged = ("--n", 20, "--data", "digits", "--extractor", tmp_path / "judge", "--out", "eval.json")
    assert run(monkeypatch, capsys, "evaluate", "tiny-edge", *judged)[0] == 0
    (row,) = json.loads(Path("eval.json").read_text())["rows"]
    assert row["checkpoint_sha256"] == read_checkpoint(shipped).sha256
    bench = ("--device", "server", "--n", 4, "--runs", 2, "--seconds", 0, "--out", "bench")
    code, out, err = run(monkeypatch, capsys, "bench", "tiny-edge", *bench)
    assert code == 0, err or out
    assert json.loads(Path("bench/record.json").read_text())["checkpoint_sha256"] == read_checkpoint(shipped).sha256
    pytest.importorskip("onnx")
    exported = ("--target", "jetson", "--precision", "fp32", "--out", "bundles")
    code, out, err = run(monkeypatch, capsys, "export", "tiny-edge", *exported)
    assert code == 0, err or out
    manifest = json.loads(Path("bundles/jetson-fp32/manifest.json").read_text())
    assert manifest["checkpoint_sha256"] == read_checkpoint(shipped).sha256


def test_what_exists_under_the_name_comes_first(shipped: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny-edge", small_unet(seed=5), role="student", method="random", sampling_steps=1)
    assert read_checkpoint(Path("tiny-edge")).folder == Path("tiny-edge")
    assert read_checkpoint(Path("tiny-edge")).sha256 != read_checkpoint(shipped).sha256


@pytest.mark.parametrize("command", [("sample", "--out", "g.png"), ("bench", "--device", "server", "--out", "b")])
def test_an_unknown_name_is_told_what_ships(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    code, out, err = run(monkeypatch, capsys, command[0], "cifar11-edge", *command[1:])
    assert code == 3
    assert (err or out) == (
        "rdd-edge: there is no checkpoint cifar11-edge: give a folder, the name of a shipped model (tiny-edge), or a "
        "Hugging Face Hub id such as google/ddpm-cifar10-32\n"
    )


def test_what_float16_cannot_hold_is_refused() -> None:
    big = {"a.weight": torch.tensor([1.0, 1e5]), "count": torch.tensor(7)}
    with pytest.raises(UsageError, match=r"a\.weight reaches 1e\+05, too large for float16"):
        rounded(big, "float16")
    assert rounded(big, "bfloat16")["count"] == 7


def test_a_foreign_folder_is_not_rounded(shipped: Path, tmp_path: Path) -> None:
    (shipped / "rdd_edge.json").unlink()
    with pytest.raises(UsageError, match=r"has no rdd_edge\.json"):
        save_rounded(read_checkpoint(shipped), tmp_path / "copy", "bfloat16")


@pytest.mark.parametrize("name", pretrained.shipped())
def test_each_model_that_ships_is_whole_small_and_described(name: str) -> None:
    found = read_checkpoint(Path(name))
    assert found.weights.stat().st_size <= 20e6
    assert found.sha256 in (found.folder / "README.md").read_text()
    found.load()


def test_the_digits_that_ship_are_of_their_classes() -> None:
    """By the classifier that ships with them, which no loss has seen."""
    found = read_checkpoint(Path("digits"))
    judge = load_classifier(found.folder / "judge").eval()
    images = torch.from_numpy(sample_images(found, 500, 1, seed=7))
    with torch.inference_mode():
        seen = judge(images.permute(0, 3, 1, 2) / 127.5 - 1.0).argmax(1)
    assert (seen == torch.arange(500) % 10).float().mean() > 0.95


def test_the_digits_that_ship_are_evaluated_without_a_training_run() -> None:
    with pytest.raises(UsageError, match=r"digits is not part of a training run: give --data$"):
        rdd_edge.evaluate("digits", n=50)
    (row,) = rdd_edge.evaluate("digits", n=500, data="digits").rows
    assert row.distance < 1.0
