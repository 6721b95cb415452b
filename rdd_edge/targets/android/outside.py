"""Which parts of a saved .pte run in a backend, and which operators in ExecuTorch's portable kernels on the CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...dependencies import import_or_explain


def operators_outside(content: bytes) -> dict[str, int]:
    """Number of calls of each operator of a .pte that runs in no backend, in descending order."""
    plan = _plan(content)
    operators = [plan.operators[call.op_index] for _, call in _calls(plan, "KernelCall")]
    names = Counter(f"{op.name}.{op.overload}" if op.overload else op.name for op in operators)
    return dict(names.most_common())


def delegates(content: bytes) -> dict[int, str]:
    """Number of each instruction of a .pte that calls a backend → the backend's name."""
    plan = _plan(content)
    return {number: plan.delegates[call.delegate_index].id for number, call in _calls(plan, "DelegateCall")}


def _plan(content: bytes) -> Any:
    serialize: Any = import_or_explain("executorch.exir._serialize._program", "reading a .pte", "android")
    return serialize.deserialize_pte_binary(content).program.execution_plan[0]


def _calls(plan: Any, kind: str) -> list[tuple[int, Any]]:
    """Number and call of each instruction of a kind. A program without control flow has a single chain."""
    (chain,) = plan.chains
    calls = [(number, instruction.instr_args) for number, instruction in enumerate(chain.instructions)]
    return [(number, call) for number, call in calls if type(call).__name__ == kind]
