"""What keeps a float16 package off the Neural Engine, read from the saved file.

The Neural Engine computes in float16, on tensors of at most four dimensions. An operator that it cannot take moves to
the GPU or the CPU, and so may its neighbours: Core ML divides the model where they meet, and copies between the parts
(Apple, "Deploying Transformers on the Apple Neural Engine", 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .evaluator import type_of

MOST_DIMENSIONS = 4


def broken_rules(function: Any, precision: str) -> tuple[str, ...]:
    """The operators that the Neural Engine does not take, one clause each; fp32 has no rules.

    function: of an `.mlpackage`, as `read_package` returns it.
    """
    return () if precision == "fp32" else tuple(_broken(function))


def _broken(function: Any) -> Iterator[str]:
    interface = {*function.inputs.values(), *function.outputs}
    for op in function.operations:
        if op.op_type.startswith("const"):
            continue
        for var in op.outputs:
            if type_of(var) == "fp32" and var not in interface:
                yield f"{var.name} ({op.op_type}) is float32"
            if var.rank > MOST_DIMENSIONS:
                yield f"{var.name} ({op.op_type}) has {var.rank} dimensions"
        if op.op_type == "cast" and interface.isdisjoint([op.x, *op.outputs]) and _touches_floats(op):
            yield f"{op.name} converts between types inside the network"


def _touches_floats(op: Any) -> bool:
    """False for a cast of a class label, whose embedding is looked up before the image is computed, on the CPU."""
    return any(type_of(var).startswith("fp") for var in (op.x, *op.outputs))
