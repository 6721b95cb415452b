"""Every stage with torch.compile: fresh and resumed, logged and not, beside the same steps uncompiled."""

from __future__ import annotations

import pytest
import torch
from processes import NAMES, stage

from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.config import Compute
from rdd_edge.distillation.stages.base import Stage

BATCH = 6
# A logged step after unlogged ones, and after a resume: its gradient of each term passes through graphs that were
# compiled for one backward pass.
BEFORE, AFTER = (False, False, True, False), (False, True)


def run(one: Stage, first: int, logged: tuple[bool, ...]) -> None:
    for index, log in enumerate(logged, first):
        assert (one.step(index, log) is not None) == log


def resumed_state(backend: str, name: str, on: bool) -> dict[str, torch.Tensor]:
    """The state of a stage that was stopped after BEFORE and ended with AFTER."""
    context = ComputeContext(torch.device("cpu"), Compute(compile=on), backend)
    first, second = (stage(name, context, BATCH) for _ in range(2))
    run(first, 0, BEFORE)
    second.load({key: value.clone() for key, value in first.state().items()})
    run(second, len(BEFORE), AFTER)
    return second.state()


def compare(backend: str, name: str, tolerance: float) -> None:
    compiled, plain = (resumed_state(backend, name, on) for on in (True, False))
    assert set(compiled) == set(plain)
    for key, expected in plain.items():
        torch.testing.assert_close(
            compiled[key], expected, rtol=tolerance, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", ["extractor", "teacher", "rdd", "sfddm", "refined"])
def test_a_stage_compiled_by_autograd_alone_takes_the_same_steps(name):
    compare("aot_eager", name, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_compiled_by_inductor_takes_nearly_the_same_steps(name):
    """Adam divides by the gradient's size: a rounding error may turn the sign of a step of a thousandth."""
    compare("inductor", name, 2e-3)
