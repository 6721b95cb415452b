"""Mistakes of a device's pipeline recognised by what they do to its samples, each named in a sentence.

A bad quantization makes images a little wrong. A swapped channel, a shifted index or another seed makes them wrong in a
way that one known change undoes; that change is what is looked for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from ..portable.noise import to_uint8
from ..schema import Frozen, Text

__all__ = ["Diagnosis", "diagnose"]

Images = NDArray[np.uint8]  # (N, H, W, C)
LOOKED_AT = 64  # images; a fault of the pipeline is in all of them
UNDONE = 0.25  # a change that leaves at most this part of the mean squared error explains the samples
WRONG_MSE = 4.0  # in levels²: below it two images differ by rounding alone, and nothing needs explaining


class Diagnosis(Frozen):
    """A mistake that was recognised."""

    name: Text
    sentence: Text


def diagnose(
    artifact: Images,
    floats: NDArray[np.float32],
    server: Images,
    student: Callable[[int, int], Images] | None = None,
    seed: int = 0,
) -> tuple[Diagnosis, ...]:
    """The faults of an artifact's samples against the server's on what should be the same noise.

    floats: the artifact's own first samples before rounding, (N', H, W, C), N' possibly 0.
    student(seed, n): the server's first n images from another seed, asked only where nothing else explains the samples.
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
        elif np.abs(kept.astype(np.int16) - rounded).max() > 1:  # one level: the device's last bit of float32
            yield Diagnosis(
                name="uint8 is not the floats",
                sentence="samples.u8 is not samples.f32 rounded: the two files come from different images.",
            )
        return
    difference = artifact[:LOOKED_AT].astype(np.int16) - server[:LOOKED_AT]
    inner = difference[(server[:LOOKED_AT] > 0) & (server[:LOOKED_AT] < 255)]
    low = np.mean(inner == -1) if inner.size else 0.0
    if 0.3 < low < 0.7 and np.mean(inner == 0) + low > 0.99:
        yield _TRUNCATION


_TRUNCATION = Diagnosis(
    name="truncation",
    sentence="Values are truncated to uint8 where they should be rounded: floor(127.5 x + 128) is asked for, "
    "and about half of the samples are one level too low.",
)


def _arrangement(
    artifact: Images, server: Images, student: Callable[[int, int], Images] | None, seed: int
) -> Iterator[Diagnosis]:
    """The one change of order, place or noise that best undoes the difference, if any does."""
    count = min(LOOKED_AT, len(artifact))
    mine = artifact[:count].astype(np.float32)
    error = _mse(mine, server[:count])
    if count == 0 or error < WRONG_MSE:
        return
    best = min(_candidates(mine, server), key=lambda pair: pair[0])
    if best[0] > UNDONE * error and student is not None:
        few = min(8, count)
        near = [s for s in (seed - 1, seed + 1) if 0 <= s < 2**64]
        best = min([best, *((_mse(mine[:few], student(s, few)), _seed(s, seed)) for s in near)], key=lambda p: p[0])
    if best[0] <= UNDONE * error:
        yield best[1]
    elif _unrelated(mine, server[:count]):
        yield Diagnosis(
            name="other noise",
            sentence="The samples are no nearer to the server's of the same index than to its others: "
            "they were made from other noise.",
        )


def _candidates(mine: NDArray[np.float32], server: Images) -> Iterator[tuple[float, Diagnosis]]:
    """(mean squared error left, fault) of each known mistake; server's images may be looked up one index further."""
    count, _, _, channels = mine.shape
    theirs = server[:count]
    if channels <= 4:
        for order in permutations(range(channels)):
            if order != tuple(range(channels)):
                yield _mse(mine, theirs[..., list(order)]), _channels(order)
    yield _mse(mine, theirs[:, ::-1]), _mirrored("top to bottom")
    yield _mse(mine, theirs[:, :, ::-1]), _mirrored("left to right")
    if theirs.shape[1] == theirs.shape[2]:
        turned = theirs.transpose(0, 2, 1, 3)
        yield _mse(mine, turned), Diagnosis(name="transposed", sentence="Rows and columns of the images are exchanged.")
    inverted = Diagnosis(name="inverted", sentence="The images are negatives: their sign was turned.")
    yield _mse(mine, 255 - theirs), inverted
    for shift in (-1, 1):
        first, last = max(0, -shift), min(count, len(server) - shift)
        if last > first:
            yield _mse(mine[first:last], server[first + shift : last + shift]), _shifted(shift)


def _channels(order: tuple[int, ...]) -> Diagnosis:
    return Diagnosis(
        name="swapped channels",
        sentence=f"The channels are in the wrong order: the artifact's are the server's {', '.join(map(str, order))}.",
    )


def _mirrored(how: str) -> Diagnosis:
    return Diagnosis(name="mirrored", sentence=f"The images are mirrored {how}.")


def _shifted(shift: int) -> Diagnosis:
    return Diagnosis(
        name="shifted index",
        sentence=f"The sample index is off by one: image i is the server's image i {'+' if shift > 0 else '−'} 1.",
    )


def _seed(made_from: int, asked: int) -> Diagnosis:
    return Diagnosis(
        name="other seed", sentence=f"The noise is that of seed {made_from}, and the plan asked for {asked}."
    )


def _mse(a: NDArray[np.float32], b: Images) -> float:
    return float(np.mean((a - b.astype(np.float32)) ** 2))


def _unrelated(mine: NDArray[np.float32], theirs: Images) -> bool:
    """Whether the images are as far from their own counterparts as from everybody else's."""
    own = _mse(mine, theirs)
    others = [_mse(mine, np.roll(theirs, k, axis=0)) for k in range(1, min(5, len(mine)))]
    return bool(others) and own > 0.8 * float(np.mean(others))
