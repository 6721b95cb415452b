"""A bundle's harness as a board would run it: a process of its own, without packages that no board has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rdd_edge.bundle import Plan

WITHOUT = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages}:
            raise ModuleNotFoundError(name + " is not on this board", name=name.split(".")[0])
sys.meta_path.insert(0, Bare())
"""


def run_harness(
    bundle: Path, out: Path, *more: str, plan: Plan | dict[str, Any], without: Collection[str]
) -> subprocess.CompletedProcess[str]:
    """harness/bench.py of a bundle.  more: further arguments.  without: packages that cannot be imported."""
    board = bundle.parent / "board"
    board.mkdir(exist_ok=True)
    (board / "sitecustomize.py").write_text(WITHOUT.format(packages=set(without)))
    planned = bundle.parent / "plan.json"
    planned.write_text(plan.model_dump_json() if isinstance(plan, Plan) else json.dumps(plan))
    command = [sys.executable, str(bundle / "harness" / "bench.py"), "--plan", str(planned), "--out", str(out), *more]
    environment = {**os.environ, "PYTHONPATH": str(board)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a board does not set it
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
