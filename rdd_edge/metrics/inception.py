"""The Inception network of FID and the Inception score, with its original weights only.

NVIDIA publishes TensorFlow's inception-2015-12-05 as TorchScript; the file is loaded only if its SHA-256 is the pinned
one. The script takes uint8 images of any size, resizes them as TensorFlow 1 does and scales them itself.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.cache import cache_root
from ..dependencies import silenced
from ..errors import CorruptError, MissingError
from ..files import sha256_of, storage_errors, write_bytes
from .extractors import Extractor

FILE = "inception-2015-12-05.pt"
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # as k-diffusion pins it
VARIABLE = "RDD_EDGE_INCEPTION"
BATCH = 64  # divides distributed.BLOCK
SECONDS = 30


def find_weights(file: Path | None = None, *, url: str = URL, sha256: str = SHA256) -> Path:
    """The file of weights: `file`, $RDD_EDGE_INCEPTION, or the one in the cache, which is downloaded if necessary.

    Raises MissingError where it is absent or cannot be downloaded, CorruptError where its hash differs.
    """
    named = file or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    path = named or cache_root() / FILE
    if not path.is_file():
        if named:
            raise MissingError(f"there is no {named}: FID needs the Inception weights, from {url}")
        _download(url, path, sha256)
    if sha256_of(path) != sha256:
        raise CorruptError(f"{path} is not the original Inception network: its SHA-256 differs; take it from {url}")
    return path


def _download(url: str, path: Path, sha256: str) -> None:
    """Download to `path`, atomically, once the hash is verified: 96 MB, which are held in memory."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)  # before the download, which a read-only cache would waste
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            content = response.read()
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        raise MissingError(
            f"FID needs the Inception weights, and they cannot be downloaded ({getattr(error, 'reason', error)}): put "
            f"{FILE} from {url} at {path}, or name it in {VARIABLE}"
        ) from None
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise CorruptError(f"{url} is not the original Inception network: its SHA-256 is {digest}")
    write_bytes(path, content)


def metric_name(extractor: Extractor) -> str:
    """Name of the distance of its features: fid for the original Inception weights alone, else fd_<name>."""
    return "fid" if extractor.sha256 == SHA256 else f"fd_{extractor.name}"


class Inception:
    """Features (N, 2048) of the last pooling for FID, and class probabilities (N, 1008) for the Inception score."""

    name = "inception"  # its distance is FID

    def __init__(self, script: Any, sha256: str, device: str = "cpu") -> None:
        self.script, self.sha256, self.device = script.eval().to(device), sha256, device

    def batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        """Features (n, 2048) of successive batches of images (N, H, W, C) uint8; grayscale becomes three channels."""
        import torch

        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(np.array(images[start : start + BATCH])).to(self.device).permute(0, 3, 1, 2)
            # TF32 would change the printed digits of a distance.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                features = self.script(pixels.expand(-1, 3, -1, -1), return_features=True)
            yield features.float().cpu().numpy()

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (n, 1008) of features (n, 2048), without the last bias, as by the score's authors."""
        import torch

        with torch.inference_mode():
            logits = torch.from_numpy(features).to(self.device) @ self.script.output.weight.float().T
            made: NDArray[np.float32] = torch.softmax(logits, dim=1).cpu().numpy()
        return made


def load_inception(path: Path | None = None, device: str = "cpu") -> Inception:
    """The network of `find_weights`. Raises MissingError or CorruptError."""
    import torch

    weights = find_weights(path)
    with silenced():  # torch deprecates TorchScript, the only format of the original weights
        script = torch.jit.load(str(weights), map_location=device)  # type: ignore[no-untyped-call]
    return Inception(script, SHA256, device)
