"""Every stage with torch.compile: fresh and resumed, logged and not, beside the same steps uncompiled."""

from __future__ import annotations

import pytest
import torch
from processes import NAMES, stage

from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import Compute
from rdd_edge.distillation.stages.base import Stage, Values

BATCH = 6
# A logged step after unlogged ones, and after a resume: its gradient of each term passes through graphs that were
# compiled for one backward pass.
BEFORE, AFTER = (False, False, True, False), (False, True)
# Of what is logged. Weights cannot be compared: before a normalisation a bias has no gradient but rounding, and Adam
# makes steps of it.
TOLERANCE = {"aot_eager": 1e-3, "inductor": 1e-2}


def run(one: Stage, first: int, logged: tuple[bool, ...]) -> list[Values]:
    """What is logged in steps from the number `first` on."""
    values = [one.step(index, log) for index, log in enumerate(logged, first)]
    assert [value is not None for value in values] == list(logged)
    return [value for value in values if value is not None]


def logged_values(backend: str, name: str, on: bool) -> list[Values]:
    """What a stage logs that is stopped after BEFORE, resumed, and ended with AFTER."""
    context = ComputeContext(torch.device("cpu"), Compute(compile=on), backend)
    first, second = (stage(name, context, BATCH) for _ in range(2))
    before = run(first, 0, BEFORE)
    second.load({key: value.clone() for key, value in first.state().items()})
    return before + run(second, len(BEFORE), AFTER)


def compare(backend: str, name: str) -> None:
    for compiled, plain in zip(*(logged_values(backend, name, on) for on in (True, False)), strict=True):
        assert set(compiled) == set(plain)
        for key, expected in plain.items():
            if expected is None:
                assert compiled[key] is None
            else:
                assert float(compiled[key]) == pytest.approx(float(expected), rel=TOLERANCE[backend], abs=1e-6), key


@pytest.mark.parametrize("name", ["extractor", "teacher", "rdd", "sfddm", "refined"])
def test_a_stage_compiled_by_autograd_alone_takes_the_same_steps(name):
    compare("aot_eager", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_compiled_by_inductor_takes_nearly_the_same_steps(name):
    compare("inductor", name)
