"""The state of an unfinished stage on disk: safetensors with a JSON beside them, hash-checked, the last two kept.

FOLDER/step-00000500/state.safetensors   every tensor
FOLDER/step-00000500/state.json          step and hash; written into the folder before it takes its name
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import RddEdgeError
from ..files import new_folder, read_model, sha256_of, write_model
from ..results import Frozen, Sha256

__all__ = [
    "load_latest",
    "modules_tensors",
    "optimizer_tensors",
    "prefixed",
    "restore_optimizer",
    "save_state",
    "select",
]

KEPT = 2


class _Header(Frozen):
    schema_version: Literal[1] = 1
    step: int = Field(ge=0)
    sha256: Sha256


def save_state(folder: Path, step: int, tensors: dict[str, Tensor]) -> None:
    """Write the state after `step` steps, then drop all but the last two."""
    with new_folder(folder / f"step-{step:08d}") as new:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, new / "state.safetensors")
        write_model(new / "state.json", _Header(step=step, sha256=sha256_of(new / "state.safetensors")))
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_latest(folder: Path) -> tuple[int, dict[str, Tensor], list[str]] | None:
    """The newest whole state: steps done, tensors, and a sentence for each newer one that is broken."""
    complaints: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            header = read_model(path / "state.json", _Header)
            if sha256_of(path / "state.safetensors") == header.sha256:
                return header.step, load_file(path / "state.safetensors"), complaints
            complaints.append(f"{path} is broken (its SHA-256 differs): the state before it is used")
        except (RddEdgeError, OSError) as error:
            complaints.append(f"{path} is broken ({error}): the state before it is used")
    return None


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter state as flat tensors; rates are a function of the step and are not state."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def modules_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers of named modules, flat."""
    result: dict[str, Tensor] = {}
    for name, module in modules.items():
        result |= prefixed(name, dict(module.state_dict()))
    return result
