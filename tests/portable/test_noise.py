"""Portable noise against published known answers and independent arithmetic."""

import math

import numpy as np
import pytest

from rdd_edge.portable.noise import labels, normals, philox4x32, to_uint8

# Random123 (D. E. Shaw Research), tests/kat_vectors, "philox4x32 10": counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_random123s_known_answers(counter, key, expected):
    k0, k1 = words(key)
    result = philox4x32(np.array(words(counter), dtype=np.uint64), (k0, k1))
    assert result.tolist() == words(expected)


def scalar_normals(seed: int, index: int, size: int) -> list[float]:
    """The contract, one number at a time, with Python's own integers and math."""
    values: list[float] = []
    for block in range(-(-size // 4)):
        c = [block, index & 0xFFFFFFFF, index >> 32, 0]
        k = [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        u = [(w + 0.5) / 2**32 for w in c]
        for a, b in ((u[0], u[1]), (u[2], u[3])):
            radius = math.sqrt(-2 * math.log(a))
            values += [radius * math.cos(2 * math.pi * b), radius * math.sin(2 * math.pi * b)]
    return values[:size]


@pytest.mark.parametrize(("seed", "index", "shape"), [(0, 0, (1, 8, 8)), (2**40 + 7, 2**33 + 5, (3, 5, 7))])
def test_normals_equal_the_contract_computed_one_by_one(seed, index, shape):
    expected = np.array(scalar_normals(seed, index, math.prod(shape))).reshape(shape)
    np.testing.assert_allclose(normals(seed, [index], shape)[0], expected, rtol=0, atol=1e-6)


def test_a_sample_does_not_depend_on_its_neighbours():
    together = normals(3, range(10), (2, 4, 4))
    np.testing.assert_array_equal(together[7], normals(3, [7], (2, 4, 4))[0])
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_normals_are_standard_normal():
    z = normals(1, range(500), (3, 16, 16)).astype(np.float64).ravel()
    n = len(z)
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs((z**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_numbers_outside_64_bits_are_refused(seed, index):
    with pytest.raises(ValueError, match="outside"):
        normals(seed, [index], (1, 2, 2))


def test_labels_are_the_index_modulo_the_classes():
    assert labels([0, 9, 10, 25], 10).tolist() == [0, 9, 0, 5]


def test_uint8_rounds_half_up_and_clamps():
    x = np.array([-1.0, -1.2, 1.0, 3.0, 0.0, 0.5 / 127.5, -0.5 / 127.5 - 1e-4], dtype=np.float32).reshape(1, 1, 1, 7)
    assert to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 255, 255, 128, 128, 127]
    assert to_uint8(np.zeros((2, 3, 4, 5), np.float32)).shape == (2, 4, 5, 3)


def test_uint8_inverts_the_networks_scaling():
    values = np.arange(256, dtype=np.float32)
    x = (values / np.float32(127.5) - np.float32(1)).reshape(1, 1, 16, 16)
    assert to_uint8(x).ravel().tolist() == list(range(256))
