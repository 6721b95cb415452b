"""The cache of decoded images: made once, found by content, never trusted when broken."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rdd_edge.data
from rdd_edge.data import cache as module
from rdd_edge.data import load_images
from rdd_edge.data.decode import Source
from rdd_edge.errors import DataError, StorageError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the sources that were decoded, in order."""
    seen: list[str] = []
    original = module._decode_into

    def counted(folder: Path, source: Source, image_size: int | None) -> None:
        seen.append(source.name)
        original(folder, source, image_size)

    monkeypatch.setattr(module, "_decode_into", counted)
    return seen


def entry(cache: Path) -> Path:
    (found,) = (path for path in (cache / "images").iterdir() if path.is_dir())
    return found


def test_decoded_once_and_mapped(cache: Path, images: Path, decodings: list[str]) -> None:
    first, second = load_images(str(images)), load_images(str(images))
    assert decodings == ["set"]
    assert isinstance(second.images, np.memmap)
    np.testing.assert_array_equal(first.images, second.images)
    assert (first.sha256, first.classes) == (second.sha256, second.classes)
    load_images(str(images), 4)
    assert decodings == ["set", "set"]


def test_writing_to_the_images_does_not_reach_the_cache(cache: Path, images: Path) -> None:
    before = np.array(load_images(str(images)).images)
    load_images(str(images)).images[...] = 0
    np.testing.assert_array_equal(load_images(str(images)).images, before)


def test_found_by_content_wherever_it_lies(cache: Path, images: Path, decodings: list[str], tmp_path: Path) -> None:
    first = load_images(str(images))
    shutil.copytree(images, tmp_path / "copy")
    moved = load_images(str(tmp_path / "copy"))
    assert decodings == ["set"]
    assert (moved.name, moved.sha256) == ("copy", first.sha256)


def test_a_changed_file_is_seen(cache: Path, images: Path, decodings: list[str]) -> None:
    before = load_images(str(images))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "a" / "1.png")
    after = load_images(str(images))
    assert decodings == ["set", "set"]
    assert not after.images[1].any()
    assert after.sha256 != before.sha256
    (images / "a").rename(images / "c")  # the same pictures, other labels
    assert load_images(str(images)).classes == ("b", "c")


def truncate(folder: Path) -> None:
    os.truncate(folder / "images.u8", 100)


def flip(folder: Path) -> None:
    content = bytearray((folder / "images.u8").read_bytes())
    content[7] ^= 1
    (folder / "images.u8").write_bytes(content)


def lose_labels(folder: Path) -> None:
    (folder / "labels.i64").unlink()


def garble(folder: Path) -> None:
    (folder / "meta.json").write_text("{}")


@pytest.mark.parametrize("damage", [truncate, flip, lose_labels, garble])
def test_a_broken_entry_is_made_again(
    damage: object, cache: Path, images: Path, decodings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = np.array(load_images(str(images)).images)
    assert callable(damage)
    damage(entry(cache))
    with caplog.at_level(logging.WARNING):
        again = load_images(str(images))
    assert decodings == ["set", "set"]
    assert "broken" in caplog.text
    np.testing.assert_array_equal(again.images, before)
    assert load_images(str(images)).sha256 == again.sha256
    assert decodings == ["set", "set"]


def test_a_copied_cache_is_checked_and_kept(cache: Path, images: Path, decodings: list[str]) -> None:
    load_images(str(images))
    os.utime(entry(cache) / "images.u8", ns=(1, 1))
    load_images(str(images))
    assert decodings == ["set"]


def test_a_broken_index_is_made_again(cache: Path, images: Path, decodings: list[str]) -> None:
    load_images(str(images))
    (index,) = (cache / "index").iterdir()
    index.write_text("nonsense")
    load_images(str(images))
    assert decodings == ["set"]


def test_a_failure_keeps_nothing(cache: Path, images: Path) -> None:
    (images / "b" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png is not a readable image"):
        load_images(str(images))
    assert not [path for path in (cache / "images").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="RDD_EDGE_CACHE names another folder"):
        load_images(str(images))


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RDD_EDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert module.cache_root() == Path("/somewhere/rdd-edge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert module.cache_root() == Path.home() / ".cache" / "rdd-edge"


def digest(path: str) -> str:
    return rdd_edge.data.load_images(path).sha256


def test_processes_that_start_together_share_one_decoding(cache: Path, images: Path) -> None:
    with get_context("spawn").Pool(3) as pool:
        found = pool.map(digest, [str(images)] * 6)
    assert len(set(found)) == 1
    entry(cache)
