"""Checkpoints: folders in the diffusers layout, with a card of what the network was trained for and their hashes.

config.json                            UNet2DModel's own
diffusion_pytorch_model.safetensors
scheduler_config.json                  DDIMScheduler's, so that diffusers draws the same samples
rdd_edge.json                          the card; a foreign folder has none
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..errors import CorruptError, MissingError, UsageError, first_line
from ..files import require_hashes, sha256_of
from ..reading.documents import read_model, read_object
from ..reading.tensors import count_values, read_header
from ..schema import Frozen, Sha256, Text
from .conversion import Conversion
from .hub import hub_id
from .pretrained import located

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "diffusion_pytorch_model.safetensors"
CARD = "rdd_edge.json"
SCHEDULER = "scheduler_config.json"
SCHEDULER_KIND = "the configuration of a scheduler"
MOST = 65536  # channels, pixels of a side, or classes
MOST_BLOCKS = 100  # levels, and blocks of a level
UNET = "unet"  # the network's folder in a pipeline
STUDENT = "student-1"
REFINED = "refined"  # the one-step student after its adversarial stage


class Card(Frozen):
    """What a checkpoint is, and the hashes that verify it."""

    schema_version: Literal[1] = 1
    role: Literal["teacher", "student"]
    method: str  # of its last training stage
    sampling_steps: int | None = Field(ge=1)  # that it was trained for; None: any number
    noise_times: tuple[float, ...] | None = None  # SFDDM: the time of the noise at each of its steps, increasing
    class_names: tuple[Text, ...] | None = None  # of a conditional model, by label; None: unconditional, or unknown
    config_sha256: Sha256
    weights_sha256: Sha256
    scheduler_sha256: Sha256 | None = None  # None: written before it was added


@dataclass(frozen=True)
class Checkpoint:
    """A verified folder.

    sha256: of its file of weights.  conversion: of a foreign one-step student (see foreign_student.py).
    """

    folder: Path
    config: dict[str, Any]
    card: Card | None
    sha256: str
    conversion: Conversion | None = None

    @property
    def name(self) -> str:
        """The id of a model from the Hub, or the name of the folder or of the pipeline's."""
        return hub_id(self.folder) or (self.folder.parent if self.folder.name == UNET else self.folder).name

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def scheduler(self) -> Path:
        """The scheduler's configuration, beside the network's or in a pipeline's folder scheduler/."""
        root = self.folder.parent if self.folder.name == UNET else self.folder
        of_pipeline = root / "scheduler" / SCHEDULER
        return of_pipeline if of_pipeline.is_file() else self.folder / SCHEDULER

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images. Raises UsageError without a sample_size, CorruptError for an invalid one."""
        size = self.config.get("sample_size")
        if size is None:
            raise UsageError(
                f"{self.folder / 'config.json'} leaves the size of the images open (sample_size): set it to the size "
                "that the model was trained on"
            )
        height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
        channels = self._positive("out_channels", self.config.get("out_channels"))
        return channels, self._positive("sample_size", height), self._positive("sample_size", width)

    @property
    def classes(self) -> int | None:
        """Number of classes of a conditional model, or None."""
        value = self.config.get("num_class_embeds")
        return None if value is None else self._positive("num_class_embeds", value)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes by label, or None where the checkpoint is unconditional or does not keep them."""
        return self.card.class_names if self.card else None

    def label_of(self, name: str) -> int:
        """The label of a class, given by name or else by index.

        Raises UsageError for an unknown one, and for an unconditional model.
        """
        if self.classes is None:
            raise UsageError(f"--class {name}: {self.folder} is not class-conditional; train with --conditional")
        names = self.class_names or ()
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < self.classes:
            return int(name)
        known = f"choose from {', '.join(names)}" if names else f"it keeps no names: give 0 … {self.classes - 1}"
        raise UsageError(f"{self.folder} has no class {name!r}: {known}")

    def names_of(self, chosen: Sequence[str]) -> tuple[str, ...]:
        """Names of the classes that samples take in turn, all of them or those chosen; without names, their labels."""
        labels = [self.label_of(name) for name in chosen] or range(self.classes or 0)
        return tuple(self.class_names[label] if self.class_names else str(label) for label in labels)

    def _positive(self, key: str, value: object) -> int:
        if not isinstance(value, int) or not 1 <= value <= MOST:
            raise CorruptError(f"{self.folder / 'config.json'} has {key} {str(value)[:40]}: it must be 1 … {MOST}")
        return value

    def require_one_step(self) -> None:
        """Raise UsageError unless the network alone, at t = 1, is the sampler that it was trained for."""
        if self.card is not None and self.card.sampling_steps != 1:
            steps = self.card.sampling_steps or "any number of"
            raise UsageError(f"{self.folder} is a {self.card.role} of {steps} sampling steps: give a one-step student")
        if self.card is None and (prediction := self._prediction()) != "sample":
            raise UsageError(
                f"{self.folder} is not a one-step student: it predicts {prediction} and needs many sampling steps; "
                "distil it with rdd-edge distill --teacher, and give the run"
            )

    def _prediction(self) -> str:
        config = read_object(self.scheduler, SCHEDULER_KIND) if self.scheduler.is_file() else {}
        return str(config.get("prediction_type") or "epsilon")  # the default of diffusers

    def load(self) -> nn.Module:
        """The UNet2DModel in eval mode, float32, with its conversion where it has one.

        Raises CorruptError where config and weights do not fit.
        """
        self._check_config()
        model, info = self._from_diffusers(
            lambda unet: unet.from_pretrained(
                str(self.folder), use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
        )
        for name, wrong in info.items():  # diffusers leaves what is missing uninitialised
            if wrong:
                raise CorruptError(f"{self.weights} does not fit its config.json: {name}: {str(wrong[0])[:200]}")
        result: nn.Module = model.float().eval()
        if name := next((name for name, value in result.state_dict().items() if not value.isfinite().all()), None):
            raise CorruptError(f"{self.weights} has NaN or infinity in {name}")
        if self.conversion is None:
            return result
        from .foreign_student import ForeignStudent

        return ForeignStudent(result, self.conversion).eval()

    def _check_config(self) -> None:
        """Raise CorruptError unless the weights are the floats that the configuration asks for, built nowhere yet."""
        import torch

        from ..dependencies import silenced

        header = read_header(self.weights)
        if name := next((name for name, tensor in header.items() if not tensor.is_float), None):
            raise CorruptError(f"{self.weights}: {name} is of type {header[name].dtype}, which is not one of weights")
        with torch.device("meta"), silenced():
            empty, unused = self._from_diffusers(lambda unet: unet.from_config(self.config, return_unused_kwargs=True))
        if name := next((key for key in unused if not key.startswith("_")), None):  # such as a misspelt one
            raise CorruptError(f"{self.folder / 'config.json'} has a key that no UNet2DModel has: {name}")
        asked, found = sum(value.numel() for value in empty.state_dict().values()), count_values(header)
        if asked != found:
            raise CorruptError(f"{self.weights} has {found} weights, and its config.json is of a network of {asked}")

    def _from_diffusers(self, make: Callable[[Any], Any]) -> Any:
        from ..dependencies import import_diffusers

        unet = import_diffusers().UNet2DModel
        try:
            return make(unet)
        except Exception as error:  # diffusers and torch alone run here, and raise many types for a wrong configuration
            raise CorruptError(f"{self.folder} does not load as a UNet2DModel: {first_line(error)}") from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Find and verify a checkpoint.

    path: a diffusers folder of a UNet2DModel, or of a pipeline with one in unet/; a training run, which stands for its
    one-step student, refined where the run has that stage; the name of a shipped model; or a Hugging Face Hub id such
    as google/ddpm-cifar10-32.
    Raises MissingError where there is none, CorruptError where one is truncated, foreign or not what its card says.
    """
    folder = _network_folder(located(path))
    for name in ("config.json", WEIGHTS):
        if not os.path.isfile(folder / name):
            raise MissingError(f"{folder} is not a diffusers UNet2DModel folder: it has no {name}")
    config = _read_config(folder / "config.json")
    card = read_model(folder / CARD, Card) if (folder / CARD).is_file() else None
    if card is None:
        return Checkpoint(folder, config, None, sha256_of(folder / WEIGHTS))
    found = Checkpoint(folder, config, card, card.weights_sha256)
    hashes = {found.weights: card.weights_sha256, folder / "config.json": card.config_sha256}
    require_hashes(hashes | {found.scheduler: card.scheduler_sha256}, folder / CARD)
    return found


def _read_config(path: Path) -> dict[str, Any]:
    """The configuration of a UNet2DModel, with numbers that a network can have."""
    config = read_object(path, "the configuration of a diffusers UNet2DModel")
    if config.get("_class_name") != "UNet2DModel":
        raise CorruptError(f"{path} is not the configuration of a diffusers UNet2DModel")
    for key, value in config.items():
        parts = value if isinstance(value, list) else [value]
        most = MOST_BLOCKS if key == "layers_per_block" else MOST
        if len(parts) > MOST_BLOCKS or any(isinstance(part, int) and abs(part) > most for part in parts):
            raise CorruptError(f"{path} has {key} {str(value)[:40]}: it must be within {most}")
    return config


def _network_folder(path: Path) -> Path:
    """The folder of the network in a training run, in a pipeline, or `path` itself."""
    if (path / "config.json").is_file():
        return path
    if (path / "run.json").is_file():
        folder = path / _last_stage(path / "run.json")
        if not folder.is_dir():
            raise MissingError(f"the run {path} has no {folder.name} yet: finish it with rdd-edge distill")
        return folder
    return path / UNET if (path / UNET / "config.json").is_file() else path


def last_stage(refining: bool, steps: int) -> str:
    """The last folder of a run: its refined student, which only a one-step student can become, or its student.

    refining: whether the settings ask for the stage.  steps: sampling steps of the student.
    """
    student = f"student-{steps}"
    return REFINED if refining and student == STUDENT else student


def _last_stage(run_file: Path) -> str:
    """The last folder of the run that this run.json describes."""
    try:
        preset = read_object(run_file, "a training run")["preset"]
        sfddm = preset.get("sfddm")
        return last_stage(bool(preset.get("refining")), int(sfddm["steps"]) if sfddm else 1)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptError(f"{run_file} does not describe a training run: it has no preset") from None
