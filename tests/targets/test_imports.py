"""What running an artifact imports: a benchmark's process does not pay for the exporters."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("executorch")
pytest.importorskip("coremltools")

ANDROID = """
from rdd_edge.dependencies import import_or_explain
from rdd_edge.targets.android.board.executorch_runtime import BINDINGS
import torch
import_or_explain(BINDINGS, "it", "android")
"""
IOS = """
from rdd_edge.targets.ios.silence import import_coremltools
import_coremltools("coremltools.converters.mil.frontend.milproto")
"""
# The hidden packages can be imported later, as by another target in the same process.
BOTH = IOS + "import executorch.exir, torchao, sklearn\n"


def loaded(script: str) -> set[str]:
    code = script + "import sys\nprint(*(n for n, m in sys.modules.items() if m is not None))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_executorchs_bindings_do_not_bring_the_exporter() -> None:
    assert not loaded(ANDROID) & {"executorch.exir", "executorch.runtime", "torch._dynamo"}


def test_coremltools_does_not_bring_the_other_sources_of_models() -> None:
    assert not loaded(IOS) & {"executorch", "torchao", "sklearn", "xgboost"}
    assert loaded(BOTH) >= {"executorch.exir", "torchao", "sklearn"}
