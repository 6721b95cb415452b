"""The README and the documentation as tests read them: code blocks, and the commands that a shell makes of them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

# Each program writes its arguments as a line of JSON and does nothing. A program that is not among these fails.
PROGRAMS = ("rdd-edge", "ssh", "make", "pip", "python", "python3", "torchrun")
STUB = "#!/bin/sh\nexec {python} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {name} \"$@\" >> {log}\n"


def hooks() -> ModuleType:
    """docs/hooks.py, which generates pages; what it imports of MkDocs it imports inside its hooks."""
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of a language, also of those indented below a list item."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def commands(text: str, folder: Path) -> list[list[str]]:
    """Program and arguments of every command in a page's sh blocks, as bash reads them, loops and quotes included."""
    log, programs = folder / "log", folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    for program in PROGRAMS:
        stub = programs / program
        stub.write_text(STUB.format(python=sys.executable, name=program, log=log))
        stub.chmod(0o755)
    script = "\n".join(["set -eu", "cd() { :; }", "source() { :; }", *blocks(text, "sh")])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, "PATH": str(programs)},
        executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]
