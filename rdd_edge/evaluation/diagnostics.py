"""Recognises mistakes of a device's image pipeline by their effect on the samples.

Quantization changes images slightly. Swapped channels, a shifted index or another seed change them in a way that one
known transformation undoes; these transformations are tried here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from ..portable.noise import to_uint8
from ..schema import Frozen, Text

Images = NDArray[np.uint8]  # (N, H, W, C)
EXAMINED = 64  # images; a mistake of the pipeline affects all of them
UNDONE = 0.25  # a transformation explains the samples if it leaves at most this fraction of the squared error
WRONG_MSE = 4.0  # in levels²; a smaller difference is that of rounding and needs no explanation


class Diagnosis(Frozen):
    """A mistake that was recognised, and what it does."""

    name: Text
    sentence: Text


def diagnose(
    artifact: Images,
    floats: NDArray[np.float32],
    server: Images,
    student: Callable[[int, int], Images] | None = None,
    seed: int = 0,
) -> tuple[Diagnosis, ...]:
    """What is wrong with an artifact's samples, compared with the server's from what should be the same noise.

    floats: the artifact's first samples before rounding, (N', H, W, C), N' possibly 0.
    student(seed, n): the server's first n images from another seed, called only if they are unrelated to
    the server's and nothing else explains them.
    """
    return (*_rounding(artifact, floats, server), *_arrangement(artifact, server, student, seed))


def _rounding(artifact: Images, floats: NDArray[np.float32], server: Images) -> Iterator[Diagnosis]:
    if len(floats):
        kept = artifact[: len(floats)]
        rounded = to_uint8(floats.transpose(0, 3, 1, 2))
        if np.array_equal(kept, rounded):
            return
        truncated = np.clip(np.floor(np.float32(127.5) * floats + np.float32(127.5)), 0, 255).astype(np.uint8)
        if np.mean(kept == truncated) > 0.99 > np.mean(kept == rounded):
            yield _TRUNCATION
        elif np.abs(kept.astype(np.int16) - rounded).max() > 1:  # one level may come from the last bit of float32
            yield Diagnosis(
                name="uint8 differs from float32",
                sentence="samples.u8 is not samples.f32 rounded to 8 bits: the two files hold different images.",
            )
        return
    difference = artifact[:EXAMINED].astype(np.int16) - server[:EXAMINED]
    inner = difference[(server[:EXAMINED] > 0) & (server[:EXAMINED] < 255)]
    low = np.mean(inner == -1) if inner.size else 0.0
    if 0.3 < low < 0.7 and np.mean(inner == 0) + low > 0.99:
        yield _TRUNCATION


_TRUNCATION = Diagnosis(
    name="truncation",
    sentence="Values are truncated to uint8 instead of rounded with floor(127.5 x + 128): "
    "about half of them are one level too low.",
)


def _arrangement(
    artifact: Images, server: Images, student: Callable[[int, int], Images] | None, seed: int
) -> Iterator[Diagnosis]:
    """The transformation or the seed that best explains the difference, if any does."""
    count = min(EXAMINED, len(artifact))
    images = artifact[:count].astype(np.float32)
    error = _mse(images, server[:count])
    if count == 0 or error < WRONG_MSE:
        return
    unrelated = _unrelated(images, server[:count])
    best = min(_candidates(images, server), key=lambda candidate: candidate[0])
    if best[0] > UNDONE * error and unrelated and student is not None:
        few = min(8, count)
        for other in (s for s in (seed - 1, seed + 1) if 0 <= s < 2**64):
            sentence = f"The noise is that of seed {other}; the plan asked for seed {seed}."
            candidate = _mse(images[:few], student(other, few)), "other seed", sentence
            best = min(best, candidate, key=lambda candidate: candidate[0])
    if best[0] <= UNDONE * error:
        yield Diagnosis(name=best[1], sentence=best[2])
    elif unrelated:
        yield Diagnosis(
            name="other noise",
            sentence="The samples are no closer to the server's sample of the same index than to its others: "
            "they were made from different noise.",
        )


def _candidates(images: NDArray[np.float32], server: Images) -> Iterator[tuple[float, str, str]]:
    """(remaining mean squared error, name, sentence) of each known mistake; `server` may hold more images."""
    count, _, _, channels = images.shape
    reference = server[:count]
    if channels <= 4:
        for order in permutations(range(channels)):
            if order != tuple(range(channels)):
                names = ", ".join(map(str, order))
                sentence = f"The channels are in the wrong order: they are the server's channels {names}."
                yield _mse(images, reference[..., list(order)]), "swapped channels", sentence
    yield _mse(images, reference[:, ::-1]), "mirrored", "The images are mirrored top to bottom."
    yield _mse(images, reference[:, :, ::-1]), "mirrored", "The images are mirrored left to right."
    if reference.shape[1] == reference.shape[2]:
        sentence = "The images' rows and columns are exchanged."
        yield _mse(images, reference.transpose(0, 2, 1, 3)), "transposed", sentence
    yield _mse(images, 255 - reference), "inverted", "The images are negatives: their sign is inverted."
    for shift in (-1, 1):
        first, last = max(0, -shift), min(count, len(server) - shift)
        if last > first:
            sign = "+" if shift > 0 else "−"
            sentence = f"The sample index is off by one: image i is the server's image i {sign} 1."
            yield _mse(images[first:last], server[first + shift : last + shift]), "shifted index", sentence


def _mse(a: NDArray[np.float32], b: Images) -> float:
    return float(np.mean((a - b.astype(np.float32)) ** 2))


def _unrelated(images: NDArray[np.float32], reference: Images) -> bool:
    """Whether the images are as far from the reference of the same index as from those of other indices."""
    same = _mse(images, reference)
    others = [_mse(images, np.roll(reference, k, axis=0)) for k in range(1, min(5, len(images)))]
    return bool(others) and same > 0.8 * float(np.mean(others))
