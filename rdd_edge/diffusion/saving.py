"""Writes checkpoints: of a network that was trained, and copies in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import UsageError
from ..files import new_folder, sha256_of, write_bytes, write_model
from .checkpoint import CARD, SCHEDULER, WEIGHTS, Card, Checkpoint, read_checkpoint
from .rounding import Half, round_file
from .schedule import scheduler_config
from .subsequence import subsequence_scheduler


def save_checkpoint(
    path: Path, model: Any, *, role: Literal["teacher", "student"], method: str, sampling_steps: int | None,
    noise_times: tuple[float, ...] | None = None, class_names: tuple[str, ...] | None = None,
) -> Checkpoint:  # fmt: skip
    """Write a UNet2DModel with its scheduler and card, atomically.

    model: converted in place to contiguous memory order, which a file of weights needs.
    """
    scheduler = scheduler_config() if noise_times is None else subsequence_scheduler(noise_times)
    model.to(memory_format=torch.contiguous_format)
    with new_folder(path) as folder:
        model.save_pretrained(str(folder), safe_serialization=True)
        write_bytes(folder / SCHEDULER, json.dumps(scheduler, indent=2).encode() + b"\n")
        card = Card(
            role=role, method=method, sampling_steps=sampling_steps, noise_times=noise_times, class_names=class_names,
            **_hashes(folder),
        )  # fmt: skip
        write_model(folder / CARD, card)
    return read_checkpoint(path)


def save_rounded(found: Checkpoint, path: Path, dtype: Half) -> Checkpoint:
    """Write a copy with weights in half precision. Once loaded it computes in float32 with the rounded values.

    Raises UsageError for a checkpoint without a card, and for weights beyond the range of `dtype`.
    """
    if found.card is None:
        raise UsageError(f"{found.folder} has no {CARD}: only checkpoints that rdd-edge has trained can be rounded")
    config = {key: value for key, value in found.config.items() if key != "_name_or_path"}  # a path on this machine
    with new_folder(path) as folder:
        write_bytes(folder / "config.json", json.dumps(config, indent=2).encode() + b"\n")
        shutil.copyfile(found.scheduler, folder / SCHEDULER)
        round_file(found.weights, folder / WEIGHTS, dtype)
        write_model(folder / CARD, found.card.model_copy(update=_hashes(folder)))
    return read_checkpoint(path)


def _hashes(folder: Path) -> dict[str, str]:
    names = {"config_sha256": "config.json", "weights_sha256": WEIGHTS, "scheduler_sha256": SCHEDULER}
    return {field: sha256_of(folder / name) for field, name in names.items()}
