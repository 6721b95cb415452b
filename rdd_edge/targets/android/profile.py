"""Time of each operator of a .pte, from ExecuTorch's event tracer: kernels of XNNPACK and portable kernels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...dependencies import import_or_explain, silenced
from ...portable.runner import Operator
from .outside import delegates

WRAPPERS = ("OPERATOR_CALL", "DELEGATE_CALL")  # events around those of the kernels themselves
PORTABLE = "portable"  # ExecuTorch's own kernels, for operators that run in no backend
NATIVE = "native_call_"


def profile(artifact: Path, inputs: Sequence[Any], runs: int) -> list[Operator] | str:
    """Mean milliseconds per inference of every kernel, or why there is no profile.

    The program is loaded separately and warmed up with one inference.  inputs: the program's input tensors.
    """
    pool: Any = import_or_explain("executorch.extension.pybindings.portable_lib", "a .pte's profile", "android")
    devtools: Any = import_or_explain("executorch.devtools", "a .pte's profile", "android")
    program = pool._load_for_executorch(str(artifact), enable_etdump=True)
    if not program.has_etdump():
        return "this build of executorch has no event tracer"
    for _ in range(runs + 1):
        program.forward(list(inputs))
    with tempfile.TemporaryDirectory(prefix="rdd-edge-") as folder, silenced():
        path = str(Path(folder) / "trace.etdump")
        program.write_etdump_result_to_file(path)
        blocks = devtools.Inspector(etdump_path=path).event_blocks
    (execute,) = (block for block in blocks if block.name == "Execute")
    return operators(execute.events, delegates(artifact.read_bytes()), runs)


def operators(events: Iterable[Any], delegate_of: dict[int, str], runs: int) -> list[Operator]:
    """The kernels among the events of an execution, in order, with the mean of their last `runs` times.

    delegate_of: the backend of each instruction that calls one.
    """
    found = []
    for event in events:
        if event.perf_data is None or event.name in WRAPPERS or event.name.startswith("Method::"):
            continue
        number = event._instruction_id
        kind = event.name.partition(" #")[0].removeprefix(NATIVE)
        backend = delegate_of.get(number, PORTABLE) if event.is_delegated_op else PORTABLE
        name = f"{number}: {event.name.removeprefix(NATIVE)}"
        found.append(Operator(name, kind, sum(event.perf_data.raw[-runs:]) / runs, backend))
    return found
