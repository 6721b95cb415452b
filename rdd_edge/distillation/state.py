"""The state of an unfinished stage on disk: safetensors with their hashes in a JSON file; the last two are kept.

FOLDER/step-00000500/state-00000.safetensors …   every tensor, in shards of a bounded size
FOLDER/step-00000500/state.json                  step, hashes, shapes; the folder gets its name when it is complete
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CorruptError, RddEdgeError
from ..files import new_folder, sha256_of, write_model
from ..reading.documents import read_model
from ..reading.tensors import read_tensors
from ..schema import Frozen, Sha256

KEPT = 2
SHARD_BYTES = 1_000_000_000


class _Header(Frozen):
    schema_version: Literal[1] = 1
    step: int = Field(ge=0)
    shards: dict[Annotated[str, Field(pattern=r"^state-\d{5,9}\.safetensors$")], Sha256]  # by file name
    shapes: dict[str, tuple[Annotated[int, Field(ge=0, lt=2**40)], ...]]  # of those split into flat pieces NAME#k
    sha256: Sha256 | None = None  # of the fields above; None: written before it was added

    def digest(self) -> str:
        """SHA-256 of all fields but the digest."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()


def save_state(folder: Path, step: int, tensors: dict[str, Tensor], shard_bytes: int = SHARD_BYTES) -> None:
    """Write the state after `step` steps in files of at most `shard_bytes` of values, then delete all but the last two.

    A larger tensor is split. One shard at a time is copied to the host.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with new_folder(folder / f"step-{step:08d}") as new:
        hashes = {}
        for number, shard in enumerate(_shards(tensors, shard_bytes, shapes)):
            path = new / f"state-{number:05d}.safetensors"
            save_file(shard, path)
            hashes[path.name] = sha256_of(path)
        header = _Header(step=step, shards=hashes, shapes=shapes)
        write_model(new / "state.json", header.model_copy(update={"sha256": header.digest()}))
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def _shards(tensors: dict[str, Tensor], most: int, shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, Tensor]]:
    """The tensors packed in order; adds the shapes of those that are split to `shapes`."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        pieces = {name: tensor}
        if tensor.nbytes > most:
            shapes[name] = tuple(tensor.shape)
            flat = torch.split(tensor.reshape(-1), max(1, most // tensor.element_size()))
            pieces = {f"{name}#{number}": piece for number, piece in enumerate(flat)}
        for key, piece in pieces.items():
            if shard and size + piece.nbytes > most:
                yield shard
                shard, size = {}, 0
            shard[key] = piece.detach().cpu().contiguous()
            size += piece.nbytes
    yield shard


def load_latest(folder: Path) -> tuple[int, dict[str, Tensor], list[str]] | None:
    """The newest complete state: steps done, tensors, and a warning for each newer one that is damaged."""
    warnings: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            header = read_model(path / "state.json", _Header)
            if header.sha256 not in (None, header.digest()):
                raise CorruptError("its state.json is not what was written")
            damaged = next((name for name, sha256 in header.shards.items() if sha256_of(path / name) != sha256), None)
            if damaged is None:
                return header.step, _joined(path, header), warnings
            warnings.append(f"{path / damaged} is damaged (its SHA-256 differs): using the state before it")
        except (RddEdgeError, OSError) as error:
            warnings.append(f"{path} is damaged ({error}): using the state before it")
    return None


def _joined(path: Path, header: _Header) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in header.shards:
        tensors |= read_tensors(path / name)
    for name, shape in header.shapes.items():
        count = sum(key.rpartition("#")[0] == name for key in tensors)
        pieces = [tensors.pop(f"{name}#{number}", torch.empty(0)) for number in range(count)]
        flat = pieces and all(piece.dim() == 1 and piece.dtype == pieces[0].dtype for piece in pieces)
        if not flat or sum(map(len, pieces)) != math.prod(shape):
            raise CorruptError(f"the pieces of {name} are not the whole tensor")
        tensors[name] = torch.cat(pieces).view(shape)
    return tensors


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter state as flat tensors. The rate is a function of the step and not part of it."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the tensors of `optimizer_tensors`, each moment with the strides of its parameter.

    A fused optimizer steps through the memory of parameter and moments together, without looking at their strides. A
    compacted state lacks Adam's first moments: they start at 0, and the steps are small until they have grown.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        same_shape = tensor.shape == parameter.shape
        state.setdefault(int(index), {})[key] = torch.empty_like(parameter).copy_(tensor) if same_shape else tensor
        if key == "exp_avg_sq":
            state[int(index)].setdefault("exp_avg", torch.zeros_like(parameter))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
