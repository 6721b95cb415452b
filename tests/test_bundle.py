"""A bundle's folder: what a system leaves in it is ignored, anything else that is foreign is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import write_fake_bundle

from rdd_edge.bundle import read_bundle
from rdd_edge.errors import CorruptError


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "parity/._z.f32", "Thumbs.db", "deep/desktop.ini", "harness/__pycache__/x.pyc"],
)
def test_what_a_system_leaves_behind_is_ignored(tmp_path: Path, name: str) -> None:
    folder = write_fake_bundle(tmp_path)
    before = read_bundle(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("x")
    assert read_bundle(folder) == before
    assert read_bundle(folder).artifact_bytes == len("fine")


@pytest.mark.parametrize("name", ["notes.txt", "parity/z.f32.bak", ".DS_Store.txt", "pycache/x.pyc"])
def test_a_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_fake_bundle(tmp_path)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(CorruptError, match=rf"bundle/{name} is foreign: .* remove the file"):
        read_bundle(folder)


def test_a_link_is_named(tmp_path: Path) -> None:
    folder = write_fake_bundle(tmp_path)
    (folder / "parity" / "link").symlink_to(folder / "manifest.json")
    with pytest.raises(CorruptError, match="parity/link is a symbolic link"):
        read_bundle(folder)
