"""Writes the golden vectors of portable noise and rounding against which the Kotlin harness is tested.

    python tests/android/golden.py

Run it again when the contract changes; tests/targets/test_android_harness.py finds a file that is out of date.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from rdd_edge.portable.noise import labels, normals, philox4x32, to_uint8

RESOURCE = Path(__file__).parent / "core" / "src" / "test" / "resources" / "golden.json"
SEEDS = (0, 7, 2**32 + 1, 2**63 + 5, 2**64 - 1)
INDICES = (0, 1, 2**32 - 1, 2**32 + 5, 2**64 - 1)
BLOCKS = (0, 1, 767)
SHAPES = ((1, 8, 8), (3, 5, 7), (1, 1, 1), (2, 1, 3))


def golden() -> dict[str, Any]:
    """Seeds and indices are texts, since JSON readers differ on numbers above 2**53."""
    return {
        "words": [_words(seed, index, block) for seed in SEEDS for index in INDICES for block in BLOCKS],
        "normals": [_normals(seed, index, shape) for seed in SEEDS for index in INDICES[::2] for shape in SHAPES],
        "labels": [
            {"index": str(index), "classes": classes, "label": int(labels([index], classes)[0])}
            for index in INDICES
            for classes in (1, 10, 1000)
        ],
        "uint8": [{"bits": _bits(x), "pixel": int(to_uint8(_image(x)).ravel()[0])} for x in _values()],
    }


def _words(seed: int, index: int, block: int) -> dict[str, Any]:
    counter = np.array([block, index & 0xFFFFFFFF, index >> 32, 0], dtype=np.uint64)
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return {"seed": str(seed), "index": str(index), "block": block, "words": words.tolist()}


def _normals(seed: int, index: int, shape: tuple[int, ...]) -> dict[str, Any]:
    z = normals(seed, [index], shape).ravel()
    return {"seed": str(seed), "index": str(index), "z": [float(f"{value:.9g}") for value in z]}


def _values() -> list[np.float32]:
    """Each level, the halves between them with their neighbours, and values to be clamped."""
    levels = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    halves = np.array([(k - 128) / 127.5 for k in range(257)], dtype=np.float32)
    exact = np.array([0.0, -0.0, 1.0, -1.0, 0.2, 0.6, -0.2, -0.6, 1 / 255, -1 / 255], dtype=np.float32)
    beyond = np.array([-1.2, -1.00001, 1.00001, 1.5, 3.0, 1e30, -1e30, 1e-40], dtype=np.float32)
    beside = [np.nextafter(halves, np.float32(end)) for end in (-9, 9)]
    return list(np.concatenate([levels, halves, *beside, exact, beyond]))


def _image(x: np.float32) -> np.ndarray[Any, Any]:
    return np.array(x, dtype=np.float32).reshape(1, 1, 1, 1)


def _bits(x: np.float32) -> int:
    """The float's pattern as a signed 32-bit number."""
    return int(struct.unpack("<i", struct.pack("<f", x))[0])


def text() -> str:
    """One row a line, so that a change shows as a change of lines."""
    parts = []
    for name, rows in golden().items():
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        parts.append(f'"{name}":[\n{lines}\n]')
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    RESOURCE.parent.mkdir(parents=True, exist_ok=True)
    RESOURCE.write_text(text())
