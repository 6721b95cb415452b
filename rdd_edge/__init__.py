"""rdd-edge: distil a diffusion model to one step, export it to edge devices, and measure it there.

The functions and types below are imported when they are first used, so that `import rdd_edge` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import TrainingRun, bench, distill, evaluate, export, report, sample
    from .benchmarking.record import RunRecord
    from .bundle import Bundle, Plan, read_bundle
    from .diffusion.checkpoint import Checkpoint, read_checkpoint
    from .evaluation.checkpoint import Evaluation
    from .evaluation.scores import Scores

__version__ = "0.1.0"

__all__ = [
    "Bundle", "Checkpoint", "Evaluation", "Plan", "RunRecord", "Scores", "TrainingRun", "bench", "distill", "evaluate",
    "export", "read_bundle", "read_checkpoint", "report", "sample",
]  # fmt: skip

_MODULES = {
    "Bundle": "bundle", "Checkpoint": "diffusion.checkpoint", "Evaluation": "evaluation.checkpoint", "Plan": "bundle",
    "RunRecord": "benchmarking.record", "Scores": "evaluation.scores", "read_bundle": "bundle",
    "read_checkpoint": "diffusion.checkpoint",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'api')}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
