"""Portable Gaussian noise: the same z for the same (seed, index) on every machine.

Philox4x32-10 (Salmon et al., SC'11) keyed by the seed and counting by (block, sample index), followed by
Box-Muller in float64. Only NumPy, because this file also runs on devices without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int], rounds: int = 10) -> NDArray[np.uint64]:
    """Philox4x32 of each counter: a bijection of four 32-bit words, chosen by the key.

    counter: (..., 4) words below 2**32, held in uint64.  key: two words below 2**32.
    Returns (..., 4) words below 2**32, in uint64.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(rounds):
        p0, p1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _MASK, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return np.stack([c0, c1, c2, c3], axis=-1)


def normals(seed: int, indices: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """z of the samples with these indices, each (C, H, W) filled in that order.

    seed: 0 … 2**64 - 1.  indices: each 0 … 2**64 - 1.  shape: of one sample.
    Returns (len(indices), *shape) float32. Raises ValueError for a number outside its range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is outside 0 … 2**64 - 1")
    if any(not 0 <= i < 2**64 for i in indices):
        raise ValueError("a sample index is outside 0 … 2**64 - 1")
    size = int(np.prod(shape))
    blocks = -(-size // 4)
    index = np.asarray(indices, dtype=np.uint64)
    counter = np.zeros((len(index), blocks, 4), dtype=np.uint64)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64)
    counter[..., 1] = (index & _MASK)[:, None]
    counter[..., 2] = (index >> _SHIFT)[:, None]
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    u = (words.astype(np.float64) + 0.5) / 2.0**32  # in (0, 1): the logarithm is finite
    radius = np.sqrt(-2.0 * np.log(u[..., 0::2]))  # (n, blocks, 2)
    angle = 2.0 * np.pi * u[..., 1::2]
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)  # (n, blocks, 2, 2)
    return z.reshape(len(index), blocks * 4)[:, :size].reshape(len(index), *shape).astype(np.float32)


def labels(indices: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Class label of each sample of a conditional model: its index modulo the number of classes."""
    return np.asarray([i % classes for i in indices], dtype=np.int64)


def inputs(
    seed: int, indices: Sequence[int], shape: tuple[int, ...], classes: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """A model's inputs for samples: `normals`, and `labels` or None for an unconditional model."""
    return normals(seed, indices, shape), None if classes is None else labels(indices, classes)


def to_uint8(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [-1, 1] as the uint8 (N, H, W, C) a device delivers: floor(127.5 x + 128), clamped."""
    scaled = np.floor(np.float32(127.5) * x.astype(np.float32) + np.float32(128.0))
    pixels: NDArray[np.uint8] = np.clip(scaled, 0.0, 255.0).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)
