"""Which operators of a saved .pte its backend did not take: they run in ExecuTorch's portable kernels, on the CPU."""

from __future__ import annotations

from collections import Counter

__all__ = ["operators_outside"]


def operators_outside(content: bytes) -> dict[str, int]:
    """Names of the operators in the execution plan of a .pte, with the number of their calls, the most first."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    plan = deserialize_pte_binary(content).program.execution_plan[0]
    calls: Counter[str] = Counter()
    for chain in plan.chains:
        for instruction in chain.instructions:
            kernel = instruction.instr_args
            if type(kernel).__name__ == "KernelCall":
                operator = plan.operators[kernel.op_index]
                calls[f"{operator.name}.{operator.overload}" if operator.overload else operator.name] += 1
    return dict(calls.most_common())
