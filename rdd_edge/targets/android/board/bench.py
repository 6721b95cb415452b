"""Run the bundle that contains this file on an arm64 Linux board: python3 harness/bench.py --plan plan.json --out OUT

The board, such as a Raspberry Pi, needs a 64-bit system with Python 3.10 to 3.13 and ExecuTorch's wheel, which brings
NumPy and PyTorch.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# Before the imports below: bytecode would be files of the bundle that its manifest does not name.
sys.dont_write_bytecode = True

from executorch_runtime import BINDINGS, ExecuTorch  # type: ignore[import-not-found]  # beside this file, not in a package

from rdd_edge.errors import DependencyError, UsageError
from rdd_edge.portable.harness import Harness, main
from rdd_edge.portable.runner import Runner


class Board(Harness):
    runtimes = ("executorch",)

    def open(self, arguments: argparse.Namespace, artifact: Path, threads: int, needs: dict[str, Any]) -> Runner:
        if needs["backend"] != "xnnpack":
            raise UsageError(
                f"this bundle needs ExecuTorch's {needs['backend']} backend, which its wheel for Linux does not have: "
                "export fp32, fp16, int8 or mixed"
            )
        try:
            import torch  # noqa: F401  (the bindings need its libraries)

            bindings = import_module(BINDINGS)
        except ImportError as error:
            version = needs["runtime"]["least"]
            reason = f"this bundle needs ExecuTorch, which cannot be imported ({error})"
            raise DependencyError(f"{reason}: python3 -m pip install executorch=={version}") from None
        return ExecuTorch(bindings, artifact, threads)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main(Board(), Path(__file__).resolve().parent.parent)
