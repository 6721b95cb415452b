"""The package's imports run downwards only: each folder may use those above it in this list, and none below."""

import ast
from pathlib import Path

import pytest

import rdd_edge

PACKAGE = Path(rdd_edge.__file__).parent
LAYERS = (
    ("errors",),
    ("schema", "dependencies", "portable"),
    ("reading",),
    ("files", "console", "distributed"),
    ("data", "drawing", "graphs"),
    ("diffusion",),
    ("metrics",),
    ("bundle",),
    ("targets",),
    ("benchmarking", "distillation"),
    ("exporting",),
    ("evaluation",),
    ("release", "reporting", "schemas"),
    ("api",),
    ("quickstart", "doctor"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def parts_of(path: Path) -> list[str]:
    """Folder or module names below the package, the last one a module's."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path) -> set[tuple[str, ...]]:
    """What a file imports of the package, as paths below it; imports inside functions count, those for types too."""
    here = list(path.relative_to(PACKAGE).parts[:-1])
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "rdd_edge"}
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = here[: len(here) - (node.level - 1)]
        elif (node.module or "").split(".")[0] == "rdd_edge":
            base = []
        else:
            continue
        module = (node.module or "").split(".") if node.module else []
        whole = [*base, *(module[1:] if not node.level else module)]
        found |= {(*whole, alias.name) for alias in node.names}
    return found


def arrows() -> dict[str, set[str]]:
    """By folder or top-level module, those it imports; the package itself, which is the API's names, aside."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = parts_of(path)
        if not parts:  # rdd_edge/__init__.py: names of the API, loaded when they are used
            continue
        graph.setdefault(parts[0], set()).update(name[0] for name in imported(path) if name and name[0] in LEVEL)
    return {source: found - {source} for source, found in graph.items()}


def test_every_folder_has_its_layer() -> None:
    assert set(arrows()) == set(LEVEL)


def test_imports_run_downwards() -> None:
    upwards = [(a, b) for a, found in arrows().items() for b in found if LEVEL[b] >= LEVEL[a]]
    assert upwards == []


def test_no_target_imports_another() -> None:
    for folder in (PACKAGE / "targets").iterdir():
        for path in folder.rglob("*.py") if folder.is_dir() else ():
            used = {name[1] for name in imported(path) if len(name) > 1 and name[0] == "targets"}
            siblings = {other.name for other in (PACKAGE / "targets").iterdir() if other.is_dir()} - {folder.name}
            assert not used & siblings, path


def test_an_arrow_upwards_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: a file of the lowest layer that imports a higher one."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "x.py").write_text("def f():\n    from ..evaluation.scores import score\n")
    monkeypatch.setattr("test_layers.PACKAGE", tmp_path)
    assert arrows() == {"metrics": {"evaluation"}}


def test_few_modules_stand_beside_the_folders() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12
