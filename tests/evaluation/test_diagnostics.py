"""Each planted mistake is diagnosed, and correct samples have no diagnosis."""

from __future__ import annotations

import numpy as np
import pytest

from rdd_edge.evaluation.diagnostics import diagnose
from rdd_edge.portable.noise import normals, to_uint8


def student(seed: int, count: int) -> np.ndarray:
    """Smooth images that depend on their noise alone, as floats (N, C, H, W)."""
    z = normals(seed, range(count), (3, 8, 8))
    ramp = np.linspace(0.2, 1.0, 3)[:, None, None] * np.linspace(0.5, 1.2, 8)[:, None]
    return np.tanh(z * ramp + 0.3 * np.arange(3)[:, None, None] - 0.4).astype(np.float32)


def images(seed: int, count: int) -> np.ndarray:
    return to_uint8(student(seed, count))


def names(artifact: np.ndarray, floats: np.ndarray | None = None, seed: int = 5) -> list[str]:
    none = np.empty((0, 8, 8, 3), np.float32)
    found = diagnose(artifact, none if floats is None else floats, images(5, 40), images, seed)
    return [diagnosis.name for diagnosis in found]


def test_correct_samples_have_no_diagnosis() -> None:
    x = student(5, 40)
    assert names(to_uint8(x), x.transpose(0, 2, 3, 1)) == []


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_quantization_noise_is_no_mistake(noise: float) -> None:
    x = student(5, 40) + noise * np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    assert names(to_uint8(x)) == []


@pytest.mark.parametrize("shown", [False, True])
def test_truncation_is_named(shown: bool) -> None:
    x = student(5, 40).transpose(0, 2, 3, 1)
    truncated = np.clip(np.floor(127.5 * x + 127.5), 0, 255).astype(np.uint8)
    assert names(truncated, x if shown else None) == ["truncation"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda u: u[..., ::-1], "swapped channels"),
        (lambda u: u[..., [1, 2, 0]], "swapped channels"),
        (lambda u: u[:, ::-1], "mirrored"),
        (lambda u: u[:, :, ::-1], "mirrored"),
        (lambda u: u.transpose(0, 2, 1, 3), "transposed"),
        (lambda u: 255 - u, "inverted"),
        (lambda u: np.roll(u, 1, axis=0), "shifted index"),
        (lambda u: np.roll(u, -1, axis=0), "shifted index"),
    ],
)
def test_each_rearrangement_is_named(change, name: str) -> None:
    x = student(5, 40) + 0.02 * np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    assert names(change(to_uint8(x))) == [name]


def test_another_seed_is_named_where_the_student_can_be_asked() -> None:
    assert names(images(6, 40)) == ["other seed"]
    assert names(images(4, 40)) == ["other seed"]
    assert names(images(77, 40)) == ["other noise"]
    none = np.empty((0, 8, 8, 3), np.float32)
    assert [f.name for f in diagnose(images(6, 40), none, images(5, 40))] == ["other noise"]


def test_floats_of_other_images_are_named() -> None:
    assert names(images(5, 40), student(6, 10).transpose(0, 2, 3, 1)) == ["uint8 differs from float32"]
