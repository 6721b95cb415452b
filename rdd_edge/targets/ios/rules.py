"""What keeps a float16 package off the Neural Engine, read from the saved file.

The Neural Engine computes in float16, on tensors of at most four dimensions. An operator that it cannot take moves to
the GPU or the CPU, and so may its neighbours: Core ML divides the model where they meet, and copies between the parts
(Apple, "Deploying Transformers on the Apple Neural Engine", 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .evaluator.package import Package, read_package

MOST_DIMENSIONS = 4


def broken_rules(path: Path, precision: str) -> tuple[str, ...]:
    """The operators of an `.mlpackage` that the Neural Engine does not take, one clause each; fp32 has no rules."""
    return () if precision == "fp32" else tuple(_broken(read_package(path)))


def _broken(package: Package) -> Iterator[str]:
    at_interface = {*package.inputs, *package.outputs}
    for op in package.operations:
        names = [name for name, _ in op.outputs]
        if op.type == "const" or op.type.startswith("constexpr_"):
            continue
        for (name, declared), rank in zip(op.outputs, op.ranks, strict=True):
            if declared == "FLOAT32" and name not in package.outputs:
                yield f"{name} ({op.type}) is float32"
            if rank > MOST_DIMENSIONS:
                yield f"{name} ({op.type}) has {rank} dimensions"
        if op.type == "cast" and at_interface.isdisjoint([*names, str(op.inputs["x"][0])]):
            yield f"{names[0]} converts between types inside the network"
