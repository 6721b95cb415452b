"""The golden vectors that a bundle carries, computed again on this machine.

Only the standard library and NumPy, because this file also runs on devices, as part of a bundle's harness.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, CorruptError
from .noise import labels, normals, philox4x32, to_uint8

TOLERANCE = 1e-6  # of normals: math libraries differ in the last bits of log, sin and cos


def check_golden(folder: Path) -> None:
    """Compare this machine's words, normals, labels and pixels with words.json, … in `folder`.

    Raises ArtifactError, which names the first case that differs, and CorruptError for a file that cannot be read.
    """
    for kind, agrees in CHECKS.items():
        path = folder / f"{kind}.json"
        try:
            wrong = [number for number, case in enumerate(json.loads(path.read_text())["cases"]) if not agrees(case)]
        except (OSError, ValueError, LookupError, TypeError):
            raise CorruptError(f"{path} does not hold golden vectors: it is missing or damaged") from None
        if wrong:
            raise ArtifactError(f"the noise self-test failed: this machine computes other {kind}, case {wrong[0]}")


def words(seed: int, index: int, block: int) -> list[int]:
    """The four words of one block of a sample's noise."""
    counter = np.array([block, index & 0xFFFFFFFF, index >> 32, 0], dtype=np.uint64)
    found: list[int] = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)).tolist()
    return found


def pixel(bits: int) -> int:
    """The pixel of a value, which is given by the pattern of its float32 as a signed number."""
    x = np.array(bits, dtype=np.int32).view(np.float32)
    return int(to_uint8(x.reshape(1, 1, 1, 1)).ravel()[0])


def _same_words(case: Any) -> bool:
    return bool(words(int(case["seed"]), int(case["index"]), case["block"]) == case["words"])


def _same_normals(case: Any) -> bool:
    z = normals(int(case["seed"]), [int(case["index"])], (len(case["z"]),))[0]
    return bool(np.abs(z - np.array(case["z"])).max() <= TOLERANCE)


def _same_label(case: Any) -> bool:
    return bool(labels([int(case["index"])], case["classes"])[0] == case["label"])


def _same_pixel(case: Any) -> bool:
    return bool(pixel(case["bits"]) == case["pixel"])


CHECKS: dict[str, Callable[[Any], bool]] = {
    "words": _same_words, "normals": _same_normals, "labels": _same_label, "rounding": _same_pixel,
}  # fmt: skip
