"""Runs a package operation by operation and rounds each result to the type that the package declares for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....errors import ArtifactError, first_line
from .constexpr import CONSTEXPR
from .operators import OPERATORS
from .package import Constant, Name, Operation, Package

__all__ = ["Evaluator", "Run"]

_INTEGERS = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-(2**15), 2**15 - 1), "UINT16": (0, 2**16 - 1)}


@dataclass(frozen=True)
class Run:
    """Results of one run."""

    outputs: dict[str, Tensor]
    largest: dict[str, float]  # magnitude of each float16 tensor before rounding, in order; inf for NaN


class Evaluator:
    """A package with its constants expanded. Raises ArtifactError, with names, for operators without support."""

    def __init__(self, package: Package) -> None:
        known = OPERATORS.keys() | CONSTEXPR.keys() | {"const"}
        if unknown := sorted({op.type for op in package.operations} - known):
            raise ArtifactError(
                f"{package.path} has operators that the evaluator does not support: {', '.join(unknown)}"
            )
        self.package = package
        self.constants: dict[str, Constant] = {}
        self._steps: list[Operation] = []
        for op in package.operations:
            if op.type == "const":
                self.constants[op.outputs[0][0]] = op.inputs["val"][0]
            elif op.type in CONSTEXPR:
                ((name, declared),) = op.outputs
                self.constants[name] = _round(CONSTEXPR[op.type](_arguments(op, self.constants)), declared)
            else:
                self._steps.append(op)
        self._last_use = {
            n: i for i, op in enumerate(self._steps) for vs in op.inputs.values() for n in vs if isinstance(n, Name)
        }

    def run(self, inputs: dict[str, Tensor], watch: Callable[[str, Tensor], None] | None = None) -> Run:
        """Outputs for inputs by name. Raises ArtifactError where one is missing or of another shape.

        watch: called with the name and the rounded value of every result.
        """
        if inputs.keys() != self.package.inputs.keys():
            expected = ", ".join(self.package.inputs)
            raise ArtifactError(f"{self.package.path} takes the inputs {expected}, not {', '.join(inputs)}")
        results: dict[str, Any] = {name: _round(v, self.package.inputs[name]) for name, v in inputs.items()}
        largest: dict[str, float] = {}
        with torch.no_grad():
            for index, op in enumerate(self._steps):
                for (name, declared), value in zip(op.outputs, self._compute(op, results), strict=True):
                    if declared == "FLOAT16":
                        largest[name] = _magnitude(value)
                    results[name] = _round(value, declared)
                    if watch is not None:
                        watch(name, results[name])
                self._forget(op, index, results)
        return Run({name: results[name] for name in self.package.outputs}, largest)

    def _compute(self, op: Operation, results: dict[str, Any]) -> tuple[Tensor, ...]:
        try:
            value = OPERATORS[op.type](_arguments(op, {**self.constants, **results}))
        except (RuntimeError, KeyError, IndexError, ValueError, AssertionError) as error:
            what = f"{op.type} {op.outputs[0][0]}"
            raise ArtifactError(f"{self.package.path}: cannot evaluate {what}: {first_line(error)}") from None
        return value if isinstance(value, tuple) else (value,)

    def _forget(self, op: Operation, index: int, results: dict[str, Any]) -> None:
        for values in op.inputs.values():
            for name in values:
                if isinstance(name, Name) and self._last_use[name] == index and name not in self.package.outputs:
                    results.pop(name, None)


def _arguments(op: Operation, known: dict[str, Any]) -> dict[str, Any]:
    values = {key: tuple(known[v] if isinstance(v, Name) else v for v in vs) for key, vs in op.inputs.items()}
    return {key: vs if key == "values" else vs[0] for key, vs in values.items()}


def _magnitude(value: Tensor) -> float:
    largest = float(value.abs().max()) if value.numel() else 0.0
    return largest if largest == largest else float("inf")


def _round(value: Tensor, declared: str) -> Tensor:
    """Values rounded to the declared type, kept in float32 or int64."""
    if declared == "FLOAT16":
        return value.half().float()
    if declared == "FLOAT32":
        return value.float()
    if declared == "BOOL":
        return value.bool()
    if declared in _INTEGERS:
        return value.clamp(*_INTEGERS[declared]).long()
    if declared in ("INT32", "INT64", "UINT32"):
        return value.long()
    raise ArtifactError(f"the evaluator does not support the type {declared}")
