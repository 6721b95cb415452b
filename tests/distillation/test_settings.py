"""Settings: each listed with its meaning, set from text or a file, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run

from rdd_edge.distillation.config import Sfddm
from rdd_edge.distillation.presets import PRESETS, resolve
from rdd_edge.distillation.settings import settings
from rdd_edge.errors import CorruptError, UsageError


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_printed_is_a_file_that_gives_the_preset_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "settings", name)
    assert code == 0
    assert out.splitlines()[0] == f'preset = "{name}"'
    (tmp_path / "my.toml").write_text(out)
    preset = PRESETS[name]
    others = {"steps": 77, "batch": 3, "rate": 0.5}
    changed = preset.model_copy(update={"seed": 9, "alpha": 3.0, "teacher": preset.teacher.model_copy(update=others)})
    assert resolve(changed, config=tmp_path / "my.toml") == preset


def test_the_judge_of_ones_own_images_has_their_name() -> None:
    assert resolve("small", data="photos/My Cats!").judge.name == "my_cats_cnn"
    assert resolve("digits", data="photos/My Cats!").judge.name == "digits_cnn"


def test_every_setting_has_a_meaning() -> None:
    off = PRESETS["digits"].model_copy(update={"sfddm": Sfddm(steps=1)})
    assert [one.key for preset in (off, *PRESETS.values()) for one in settings(preset) if not one.meaning] == []


def test_a_run_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """The file names the preset, an option overrides it, and --set both; the run's record shows what holds."""
    from rdd_edge.distillation.run_folder import read_training_run

    (tmp_path / "my.toml").write_text(
        'preset = "cifar10-edge"\ndata = "digits"\nseed = 1\nteacher.steps = 5\n[network]\nchannels = [16, 32]\n'
    )
    words = ("--set", "network.groups=8", "--set", "network.attention=1", "--set", "teacher.steps=6", "--seed", 2)
    config = ("--config", tmp_path / "my.toml", "--max-minutes", 0)
    code, _, err = run(monkeypatch, capsys, "distill", *config, *words, "--out", tmp_path / "run")
    assert code == 0, err
    found = read_training_run(tmp_path / "run").preset
    assert (found.name, found.data, found.seed, found.teacher.steps) == ("cifar10-edge", "digits", 2, 6)
    assert (found.network.channels, found.network.groups, found.network.attention) == ((16, 32), 8, (1,))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("teacher.stepz=3", "teacher.stepz is not a key of the preset: did you mean teacher.steps?"),
        ("refning.anchor=3", "did you mean refining.anchor?"),
        ("teacher.steps=many", "; for example teacher.steps=600"),
        ("network.channels=16,x", "; for example network.channels=32,64"),
        ("sfddm.steps=2", "the setting sfddm.steps has no effect: sfddm is off"),
    ],
)
def test_a_wrong_setting_is_a_sentence_with_a_way_out(
    setting: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, "distill", "--set", setting, "--out", "run")
    assert code == 2 and sentence in err


def test_a_wrong_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    for content, error, sentence in (
        (b"seed = ", CorruptError, "my.toml is not a TOML file"),
        (b"\xff", CorruptError, "my.toml is not a TOML file"),
        (b"[techer]\nsteps = 3", UsageError, "techer is not a key of the preset: did you mean teacher?"),
        (b"[teacher]\nstepz = 3", UsageError, "did you mean teacher.steps?"),
        (b"data = 1", UsageError, "data: Input should be a valid string"),
        (b"data = ['a']", UsageError, "data: Input should be a valid string"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=sentence.replace("?", r"\?")):
            resolve("digits", config=path)
