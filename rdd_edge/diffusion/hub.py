"""Checkpoints from the Hugging Face Hub, through huggingface_hub with its cache, its token and its offline mode.

Configurations and safetensors are downloaded, never a pickle. A model in the cache is used without contacting the Hub,
so a checkpoint stays the same from one command to the next.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from ..console import reporter
from ..dependencies import import_or_explain, silenced
from ..errors import CorruptError, MissingError, RddEdgeError, first_line
from ..files import storage_errors
from ..reading.documents import read_json

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)  # owner/name
SECONDS = 10  # to wait for the Hub's answer
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULERS = ("scheduler_config.json", "scheduler/scheduler_config.json")
CONFIGS = ["config.json", "unet/config.json", *SCHEDULERS, "rdd_edge.json"]


def hub_id(folder: Path) -> str | None:
    """The id of a model whose folder is in the Hub's cache, models--owner--name/snapshots/<hash>; None for others."""
    match = re.search(r"models--([^/]+)--([^/]+)/snapshots/", folder.as_posix())
    return "/".join(match.groups()) if match else None


def read_from_hub(repo_id: str, *, download: bool) -> Path:
    """The folder of a model in the Hub's cache: a UNet2DModel, or a pipeline with one in unet/.

    download: whether a model that the cache does not hold is looked for on the Hub.
    Raises MissingError where it is not found or cannot be downloaded, CorruptError for any other kind of model.
    """
    for module in ("", ".constants", ".errors", ".utils"):  # import huggingface_hub alone binds no submodule
        import_or_explain(f"huggingface_hub{module}", f"reading {repo_id} from the Hugging Face Hub", "distill")
    hub = sys.modules["huggingface_hub"]
    cache = hub.constants.HF_HUB_CACHE
    folder = _cached(hub, repo_id)
    if folder is not None and _is_whole(folder):
        return folder
    if not download:
        parent, name = repo_id.split("/")
        raise MissingError(
            f"there is no checkpoint {repo_id}: the folder {parent} has no {name}, and the Hugging Face cache {cache} "
            "has no such model"
        )
    if hub.constants.HF_HUB_OFFLINE:
        raise MissingError(
            f"there is no checkpoint {repo_id}: it is not in the Hugging Face cache {cache}, and HF_HUB_OFFLINE "
            "forbids downloading it: unset HF_HUB_OFFLINE, or give a folder"
        )
    return _download(hub, repo_id)


def _cached(hub: Any, repo_id: str) -> Path | None:
    try:
        with silenced():
            return Path(hub.snapshot_download(repo_id, allow_patterns=CONFIGS, local_files_only=True))
    except Exception:  # it is not in the cache; the type depends on the version of huggingface_hub
        return None


def _download(hub: Any, repo_id: str) -> Path:
    reporter().begin(f"downloading {repo_id}")
    bars = not hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        with silenced(), storage_errors(Path(hub.constants.HF_HUB_CACHE)):
            hub.HfApi().model_info(repo_id, timeout=SECONDS)  # snapshot_download itself waits without a limit
            folder = Path(hub.snapshot_download(repo_id, allow_patterns=CONFIGS, etag_timeout=SECONDS))
            network = _network(folder)
            if network is None:
                raise CorruptError(
                    f"{repo_id} on the Hugging Face Hub is neither a UNet2DModel nor a pipeline with one"
                )
            weights = (network / WEIGHTS).relative_to(folder).as_posix()
            hub.snapshot_download(repo_id, allow_patterns=[*CONFIGS, weights], etag_timeout=SECONDS)
    except RddEdgeError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP library raise many types
        raise MissingError(
            f"there is no folder {repo_id}, and it cannot be downloaded from the Hugging Face Hub {_reason(hub, error)}"
        ) from None
    finally:
        if bars:
            hub.utils.enable_progress_bars()
    if not _is_whole(folder):
        lacking = WEIGHTS if not (network / WEIGHTS).is_file() else SCHEDULERS[0]
        raise MissingError(f"{repo_id} on the Hugging Face Hub has no {lacking}: save it again with a recent diffusers")
    reporter().end()
    return folder


def _reason(hub: Any, error: BaseException) -> str:
    """Why a download failed, in brackets, and what to do about it."""
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        gated = isinstance(error, hub.errors.GatedRepoError)
        reason = "access to it is restricted" if gated else "there is no such model, or it is private"
        return f"({reason}): check the spelling, or log in with hf auth login"
    while error.__cause__:
        error = error.__cause__
    return f"({first_line(error)}): check the connection, or give a folder"


def _network(folder: Path) -> Path | None:
    """The folder, or its unet/, where that has the configuration of a UNet2DModel."""
    for path in (folder, folder / "unet"):
        if (path / "config.json").is_file():
            config = read_json(path / "config.json")
            if isinstance(config, dict) and config.get("_class_name") == "UNet2DModel":
                return path
    return None


def _is_whole(folder: Path) -> bool:
    """Whether network, weights and scheduler are there: another program may have downloaded a part of the model."""
    network = _network(folder)
    return network is not None and (network / WEIGHTS).is_file() and any((folder / s).is_file() for s in SCHEDULERS)
