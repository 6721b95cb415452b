"""What the README and the documentation say exists: links, folders, functions, rewrites, names of the Python API."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
from pages import DOCS, PAGES, ROOT, blocks, hooks, name

PACKAGE = ROOT / "rdd_edge"
GENERATED = hooks().GENERATED
every_page = pytest.mark.parametrize("page", PAGES, ids=name)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {page.relative_to(DOCS).as_posix() for page in PAGES[1:]} | set(GENERATED)


@every_page
def test_links_lead_somewhere(page):
    text = page.read_text()
    for block in re.findall(r"^ *```.*?^ *```$", text, re.DOTALL | re.MULTILINE):
        text = text.replace(block, "")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        generated = GENERATED.get(file.relative_to(DOCS).as_posix()) if file.is_relative_to(DOCS) else None
        assert generated or file.is_file(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(generated() if generated else file.read_text()), target


def anchors(text: str) -> set[str]:
    """Of a page's headings, as MkDocs and GitHub make them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in titles}


@every_page
def test_python_blocks_use_what_exists(page):
    """Each compiles, and each name and argument of rdd_edge in it is real."""
    for block in blocks(page.read_text(), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rdd_edge"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Call) and (function := of_the_package(node.func)):
                arguments = [None] * len(node.args)
                inspect.signature(function).bind(*arguments, **{str(word.arg): None for word in node.keywords})


def of_the_package(node: ast.expr) -> object:
    """rdd_edge.NAME, or None for another expression."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rdd_edge":
        return getattr(importlib.import_module("rdd_edge"), node.attr)
    return None


def test_the_reference_holds_the_whole_python_api():
    import rdd_edge

    shown = re.findall(r"^::: (rdd_edge[\w.]*)\.(\w+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE)
    assert {item for _, item in shown} == set(rdd_edge.__all__)
    for module, item in shown:
        assert getattr(importlib.import_module(module), item) is getattr(rdd_edge, item)


def folders() -> set[str]:
    """Of the package: those with modules in them."""
    return {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


def test_the_trees_name_every_folder_of_the_package():
    readme = (ROOT / "README.md").read_text().split("rdd_edge/\n")[1].split("```")[0]
    assert set(re.findall(r"(\w+)/(?=[, ] )", readme.split("\ntests/")[0])) >= folders()
    development = (DOCS / "development.md").read_text().split("## Layout")[1].split("## ")[0]
    assert set(re.findall(r"`(\w+)/`", development)) == folders()


@pytest.mark.parametrize("page", sorted((DOCS / "how-it-works").glob("*.md")), ids=name)
def test_files_and_functions_that_are_explained_exist(page):
    text = page.read_text()
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for file in re.findall(r"`([\w/]+\.py)`", text):
        assert (PACKAGE / file).is_file(), file
    for function in re.findall(r"`(\w+)\(\)`", text):
        assert f"def {function}(" in source, function


def test_every_rewrite_is_explained():
    from rdd_edge.exporting.rewrites import REWRITES

    text = (DOCS / "how-it-works" / "rewrites.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(REWRITES)


def test_the_command_line_page_shows_every_option():
    from typer.main import get_command

    from rdd_edge.cli import app

    page = GENERATED["reference/cli.md"]()
    for command, object_ in get_command(app).commands.items():
        section = page.split(f"## rdd-edge {command}\n")[1].split("\n## ")[0]
        for parameter in object_.params:
            shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
            assert re.search(rf"^\| `(-\w, )?{shown}[ .`]", section, re.MULTILINE), (command, parameter.name)


def test_the_presets_page_shows_values_that_can_be_set():
    from rdd_edge.distillation.presets import resolve

    rows = re.findall(r"^\| `([\w.]+)` \| `?([^|`]*)`? \|", GENERATED["reference/presets.md"](), re.MULTILINE)
    assert ("teacher.steps", "600") in rows
    resolve("digits", settings=[f"{key}={value}" for key, value in rows if value.strip()])


def test_the_schemas_page_shows_every_schema_and_field():
    page = GENERATED["reference/schemas.md"]()
    for path in Path(PACKAGE, "schemas").glob("*.json"):
        assert f"## {path.name}\n" in page
    assert "| `latency_ms` | array of number in [0, 1000000000000] or null | yes |" in page
