"""`rdd-edge pack`: a training run's student as a model to publish, rounded, evaluated and described.

FOLDER/{config.json,diffusion_pytorch_model.safetensors,scheduler_config.json}   as diffusers reads them
FOLDER/rdd_edge.json   hashes, method and sampling steps
FOLDER/judge/          the run's judge, unless other extractors were asked for
FOLDER/README.md       the model card
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ..diffusion.checkpoint import read_checkpoint
from ..diffusion.rounding import Half
from ..diffusion.saving import save_rounded
from ..distillation.run_folder import RUN_FILE, read_training_run
from ..errors import UsageError
from ..evaluation.checkpoint import Evaluation, evaluate
from ..evaluation.sources import evaluation_sources
from ..files import new_folder, write_bytes
from ..metrics.classifiers import copy_classifier
from .model_card import CARD_FILE, ModelFacts, model_card


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
    """Write a run's last student as the model `name` to the folder `out`. Returns an evaluation for each extractor.

    count, seed: the samples of the evaluations.  data, extractors: as in `rdd-edge evaluate`; by default the training
    data and the run's judge.  The folder appears whole or not at all.
    Raises UsageError for what cannot be packed, before anything is written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise UsageError(f"--name {name} is not valid: use lower-case letters, digits, dots, dashes and underscores")
    if dtype not in get_args(Half):
        raise UsageError(f"there is no --dtype {dtype}: choose from {', '.join(get_args(Half))}")
    if not (run / RUN_FILE).is_file():
        raise UsageError(f"{run} is not a training run: it has no {RUN_FILE} for the recipe of the model card")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    run_file, student = read_training_run(run), read_checkpoint(run)
    if not extractors and run_file.preset.judge is None:
        raise UsageError(f"{run} has no judge, and its students were trained against its extractor: give --extractor")
    with new_folder(out) as folder:
        packed = save_rounded(student, folder, dtype)
        if not extractors:
            copy_classifier(run / "judge", folder / "judge", student.image_shape)
        specs: list[str | None] = [*extractors] or [None]
        evaluations = []
        for spec in specs:
            real, judge = evaluation_sources(run, data, spec)
            evaluations.append(evaluate(folder, (), count, seed, real, judge))
        facts = ModelFacts(name, dtype, packed, run_file, run, tuple(zip(specs, evaluations, strict=True)))
        write_bytes(folder / CARD_FILE, model_card(facts).encode())
    return evaluations
