"""Every option and argument of every command, given what it cannot use: a sentence, an exit code, no traceback."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from bundles import add_fake_target, write_fake_bundle
from networks import small_unet
from records import write_run
from tiny import TINY, tiny

from rdd_edge.cli import export, main, measure, other, report, train

COMMANDS = [command for module in (train, export, measure, report, other) for command in module.COMMANDS]
EXIT_CODES = {0, *range(2, 13)}  # 1 is an exception that nobody expected

WORDS = ["", "-", "x" * 5000, "🙂", "\x1b[31m"]
VALUES: dict[type, list[str]] = {
    int: ["", "x", "-1", "1.5", "9" * 22],
    float: ["", "x", "-1", "nan", "1e400"],
    Path: ["", "{file}", "{folder}", "{file}/below", "/proc/nothing/here", "{loop}", "{tmp}/" + "x" * 300],
    str: [*WORDS, "{file}", "{folder}"],
}

# What makes each command valid. Options under test come after, and the last one counts.
VALID = {
    "distill": ["--out", "{tmp}/run", "--max-minutes", "0", *(word for s in TINY for word in ("--set", s))],
    "study": ["--vary", "alpha", "--values", "1,2", "--out", "{tmp}/study", "--start-from", "{run}", "--max-minutes",
              "0", "--n", "4", *(word for s in TINY for word in ("--set", s))],
    "settings": ["digits"],
    "compact": ["{run}", "--out", "{tmp}/small"],
    "export": ["{checkpoint}", "--target", "fake", "--out", "{tmp}/bundles"],
    "verify": ["{bundle}"],
    "pack": ["{run}", "--name", "model", "--out", "{tmp}/model", "--n", "4"],
    "sample": ["{checkpoint}", "--out", "{tmp}/grid.png", "--n", "1"],
    "evaluate": ["{checkpoint}", "--n", "4", "--data", "digits", "--extractor", "{run}/judge"],
    "bench": ["{bundle}", "--out", "{tmp}/bench", "--n", "2", "--runs", "1", "--seconds", "0"],
    "compare": ["{run}", "--n", "4"],
    "compare-bench": ["{record}", "{record}"],
    "report": ["{record}", "--out", "{tmp}/report.html"],
    "quickstart": ["--out", "{tmp}/quickstart"],
    "doctor": [],
    "devices": ["ssh://127.0.0.1:1"],
    "harness": ["android", "--out", "{tmp}/app"],
}  # fmt: skip


class Parameter(NamedTuple):
    """An argument of a command, or an option; `position` is the argument's among the arguments."""

    name: str
    option: str | None
    position: int | None
    kind: type


def parameters(command: Callable[..., None]) -> list[Parameter]:
    found: list[Parameter] = []
    for name, given in inspect.signature(command, eval_str=True).parameters.items():
        annotated, info = get_args(given.annotation)[:2]
        kinds = [kind for kind in (int, float, Path, str) if kind in flat(annotated)]
        if type(info).__name__ == "ArgumentInfo":
            position = sum(parameter.position is not None for parameter in found)
            found.append(Parameter(name, None, position, kinds[0]))
        elif kinds:
            option = next((word for word in info.param_decls or () if word.startswith("--")), None)
            found.append(Parameter(name, option or f"--{name.replace('_', '-')}", None, kinds[0]))
    return found


def flat(hint: Any) -> list[Any]:
    return [part for inner in get_args(hint) for part in flat(inner)] if get_args(hint) else [hint]


def cases() -> list[Any]:
    found = []
    for command in COMMANDS:
        name = command.__name__.replace("_", "-")
        for parameter in parameters(command):
            for value in VALUES[parameter.kind]:
                shown = value if len(value) < 30 else f"{value[:8]}…{len(value)}"
                found.append(pytest.param(name, parameter, value, id=f"{name}-{parameter.name}-{shown!r}"))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Valid inputs, made once; no command may change them."""
    from rdd_edge.diffusion.saving import save_checkpoint
    from rdd_edge.distillation.run import distill

    folder = tmp_path_factory.mktemp("world")
    distill(tiny(), folder / "run", device="cpu")
    save_checkpoint(folder / "checkpoint", small_unet(), role="student", method="random", sampling_steps=1)
    bundle = write_fake_bundle(folder)
    record = write_run(folder / "record")
    return {"run": folder / "run", "checkpoint": folder / "checkpoint", "bundle": bundle, "record": record}


@pytest.mark.parametrize(("command", "parameter", "value"), cases())
def test_a_value_that_cannot_be_used_is_a_sentence(
    command: str, parameter: Parameter, value: str, world: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    add_fake_target(monkeypatch)
    monkeypatch.setattr("rdd_edge.quickstart.quickstart", lambda out, preset, minutes: None)
    monkeypatch.setattr("rdd_edge.exporting.pipeline._Build.bundle", lambda *_: None)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "something").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    places = {**world, "tmp": tmp_path, **{name: tmp_path / name for name in ("file", "folder", "loop")}}
    given = value.format(**places) if "{" in value else value
    words = [word.format(**places) if word.startswith("{") else word for word in VALID[command]]
    if parameter.option is None:
        assert parameter.position is not None
        words[parameter.position] = given
    else:
        words.append(f"{parameter.option}={given}")
    monkeypatch.setattr(sys, "argv", ["rdd-edge", command, *words])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code in EXIT_CODES, error
    assert "Traceback" not in error
    assert "\x1b[31m" not in error
    if code:
        assert error.startswith(("rdd-edge: ", "Usage: ")), error
        assert not error.startswith("rdd-edge: ") or len(error.strip().splitlines()) == 1, error
    assert (tmp_path / "folder" / "something").read_text() == "kept"
    if code:
        assert (tmp_path / "file").read_text() == "a file"
