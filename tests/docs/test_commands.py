"""Every command of the README and the documentation: parsed by the real command line, and those that matter run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, ROOT, blocks, commands, hooks, name
from tiny import TINY
from typer.main import get_command

from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.cli import app
from rdd_edge.distillation.presets import resolve
from rdd_edge.targets import load_target

GROUP: Any = get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_real(page, tmp_path):
    check_all(page.read_text(), tmp_path)


def test_examples_of_the_help_are_real(tmp_path):
    assert check_all(hooks().GENERATED["reference/cli.md"](), tmp_path) >= 5


@pytest.mark.parametrize(
    "text",
    [
        "rdd-edge destill --out runs/a",
        "rdd-edge distill --outt runs/a",
        "rdd-edge distill",
        "rdd-edge distill --out runs/a --set teacher.stepz=3",
        "rdd-edge distill --out runs/a --method rd",
        "rdd-edge bench",
        "rdd-edge export runs/a --target toaster --out b",
        "rdd-edge export runs/a --target jetson --precision w4 --out b",
        "make tset",
        "make install TORCH_INDX=x",
        "pip install '.[androod]'",
        "python benchmarks/exports.py",
        "python benchmarks/export.py --siez cifar10",
        "torchrun --nproc-per-node 8 -m rdd_edge evaluate runs/a --n 3",
        "python -m rdd_edge.schemaz",
        "curl https://example.org",
    ],
)
def test_a_wrong_command_is_found(text, tmp_path):
    """Each check above can fail."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - by whatever the check raises
        check_all(f"```sh\n{text}\n```\n", tmp_path)


def check_all(text: str, folder: Path) -> int:
    """Check a page's commands; their number."""
    found = commands(text, folder)
    for program, *arguments in found:
        CHECKS[program](arguments)
    return len(found)


# ---- one check for each program ----


def check_rdd_edge(arguments: list[str]) -> None:
    """Commands, options, values and settings, as far as they can be known without running."""
    command, *rest = arguments
    if command.startswith("-"):
        assert command == "--help" or any(command in option.opts for option in GROUP.params)
        return
    values = GROUP.commands[command].make_context(command, rest).params
    if command in ("distill", "study"):
        options = {key: values.get(key) for key in ("method", "losses", "sfddm_steps", "subsequence")}
        resolve(values["preset"] or "digits", settings=values["set_"] or (), **options)
    targets = values.get("target") or ()
    for target in [targets] if isinstance(targets, str) else targets:
        precisions = {getattr(precision, "name", precision) for precision in load_target(target).precisions}
        assert set(values.get("precision") or ()) <= {"all", *precisions}


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for argument in arguments:
        variable, equals, _ = argument.partition("=")
        pattern = rf"^{re.escape(variable)} \?=" if equals else rf"^{re.escape(argument)}:"
        assert re.search(pattern, makefile, re.MULTILINE), argument


def check_pip(arguments: list[str]) -> None:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    assert arguments[0] == "install"
    for requirement in re.findall(r"^(?:\.|rdd-edge)\[(.+)\]$", "\n".join(arguments), re.MULTILINE):
        assert set(requirement.split(",")) <= set(extras)


def check_python(arguments: list[str]) -> None:
    """A module of the package, or a script of this repository that knows the options."""
    first, *rest = arguments
    if first == "-m":
        assert (ROOT / rest[0].replace(".", "/") / "__main__.py").is_file()
        return
    scripts = [ROOT / first]
    if first.startswith("harness/"):
        scripts = [ROOT / "rdd_edge/targets/jetson" / first, ROOT / "rdd_edge/portable/harness.py"]
    text = "".join(script.read_text() for script in scripts)
    options = [argument for argument in rest if argument.startswith("--")]
    assert all(f'"{option}"' in text for option in options)


def check_ssh(arguments: list[str]) -> None:
    """A package that is installed on a board."""
    assert arguments[1:4] == ["python3", "-m", "pip"]
    check_pip(arguments[4:])


def check_torchrun(arguments: list[str]) -> None:
    assert arguments[0] == "--nproc-per-node"
    assert arguments[2:4] == ["-m", "rdd_edge"]
    assert "--n" not in arguments  # torchrun takes it for an abbreviation of its own options
    check_rdd_edge(arguments[4:])


CHECKS = {
    "rdd-edge": check_rdd_edge, "make": check_make, "pip": check_pip, "python": check_python,
    "python3": check_python, "ssh": check_ssh, "torchrun": check_torchrun,
}  # fmt: skip

# ---- for real, at a toy size ----

PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=3, seconds=0.0, starts=1), accuracy=AccuracyPlan(samples=40, floats=20)
)


def shortened(arguments: list[str]) -> list[str]:
    """The same command with a tiny network, a few steps and a few runs."""
    if arguments[0] == "distill":
        return [*arguments, *(word for setting in TINY for word in ("--set", setting))]
    if arguments[0] == "bench":
        return [*arguments, "--runs", "3", "--seconds", "0", "--n", "40"]
    return [*arguments, "--n", "40"] if arguments[0] == "evaluate" and "--reference" not in arguments else arguments


class Shortened(ast.NodeTransformer):
    """The same for the calls of a Python example."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "distill":
            own = next((word.value for word in node.keywords if word.arg == "settings"), ast.List([], ast.Load()))
            node.keywords = [word for word in node.keywords if word.arg != "settings"]
            settings = ast.BinOp(own, ast.Add(), ast.Name("TINY", ast.Load()))
            node.keywords.append(ast.keyword("settings", settings))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "bench":
            node.keywords = [word for word in node.keywords if word.arg != "quick"]
            node.keywords.append(ast.keyword("plan", ast.Name("PLAN", ast.Load())))
        return node


def write_photos(folder: Path) -> None:
    """Two classes of twenty small colour pictures."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for label, level in (("cats", 60), ("dogs", 180)):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = noise.normal(level, 30, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:04}.png")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "run"), [("README.md", "runs/digits"), ("docs/tutorial.md", "runs/photos")])
def test_the_commands_of_a_page_run(page, run, tmp_path):
    """Those about one run, in their order; the tutorial's others are for a GPU."""
    write_photos(tmp_path / "photos")
    work = {run, "digits", *(f"bench/{name}" for name in ("android-int8", "server")), "bundles/android-int8"}
    for program, *arguments in commands((ROOT / page).read_text(), tmp_path / "parse"):
        if program == "rdd-edge" and work & set(arguments):
            done = subprocess.run(
                [sys.executable, "-m", "rdd_edge", *shortened(arguments)],
                cwd=tmp_path, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    report = tmp_path / ("report.html" if page == "README.md" else "photos.html")
    assert "android" in report.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorial.md"], ids=name)
def test_the_python_example_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    (example,) = blocks(page.read_text(), "python")
    tree = ast.fix_missing_locations(Shortened().visit(ast.parse(example)))
    exec(compile(tree, name(page), "exec"), {"TINY": TINY, "PLAN": PLAN})
    if page.name == "README.md":
        assert capsys.readouterr().out.endswith("dB to the student\n")
    assert (tmp_path / ("report.html" if page.name == "README.md" else "photos.html")).is_file()
