"""A training run's student made into a model to ship: rounded, measured as it then is, and described.

FOLDER/{config.json,diffusion_pytorch_model.safetensors,scheduler_config.json}   as diffusers reads them
FOLDER/rdd_edge.json   hashes; what it was trained for
FOLDER/README.md       data, recipe, minutes, metrics with their commands, limits
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ..diffusion.checkpoint import read_checkpoint, save_rounded
from ..diffusion.rounding import Half
from ..distillation.run import RUN_FILE, read_training_run
from ..errors import UsageError
from ..evaluation.checkpoint import Evaluation, evaluate
from ..evaluation.sources import evaluation_sources
from ..files import new_folder, write_bytes
from .model_card import CARD_FILE, ModelFacts, model_card

__all__ = ["pack"]


def pack(
    run: Path,
    name: str,
    out: Path,
    dtype: Half = "bfloat16",
    count: int = 10_000,
    seed: int = 0,
    data: str | None = None,
    extractors: Sequence[str] = (),
) -> list[Evaluation]:
    """Write the model `name` of a run's last student to the folder `out`. Returns its metrics, one an extractor.

    count, seed: of the samples.  data, extractors: as `rdd-edge evaluate` takes them; none: the run's judge.
    Raises UsageError for what cannot be packed, before anything is written; the folder is there whole or not at all.
    """
    _check(run, name, out, dtype)
    told, student = read_training_run(run), read_checkpoint(run)
    if not extractors and told.preset.judge is None:
        raise UsageError(f"{run} has no judge, and its extractor was trained against: give --extractor")
    with new_folder(out) as folder:
        packed = save_rounded(student, folder, dtype)
        specs = list(extractors) or [str(run / "judge")]
        found = []
        for spec in specs:
            real, judge = evaluation_sources(run, data, spec)
            found.append(evaluate(folder, (), count, seed, real, judge))
        facts = ModelFacts(name, dtype, packed, told, run, tuple(zip(specs, found, strict=True)))
        write_bytes(folder / CARD_FILE, model_card(facts).encode())
    return found


def _check(run: Path, name: str, out: Path, dtype: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise UsageError(f"--name {name} is not a name: use lower-case letters, digits, dots and dashes")
    if dtype not in get_args(Half):
        raise UsageError(f"there is no --dtype {dtype}: choose from {', '.join(get_args(Half))}")
    if not (run / RUN_FILE).is_file():
        raise UsageError(f"{run} is not a training run: the recipe in a model's card comes from its {RUN_FILE}")
    if out.exists():
        raise UsageError(f"{out} is there already: choose another --out")
