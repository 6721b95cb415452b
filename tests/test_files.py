"""Readers and writers of files: whatever the operating system or a document holds against them is one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rdd_edge.data import load_images
from rdd_edge.diffusion.checkpoint import CARD, Card, read_checkpoint
from rdd_edge.diffusion.external_teacher import read_schedule
from rdd_edge.errors import CorruptError, DataError, MissingError, RddEdgeError, StorageError
from rdd_edge.files import new_folder, sha256_of, storage_errors, write_bytes
from rdd_edge.reading.documents import read_json, read_model
from rdd_edge.reading.tensors import read_weights

NESTED = "[" * 100_000


UNWRITABLE = (
    "file/out",
    "file/below/out",
    "x" * 300,
    "loop/out",
    "/proc/out",
    "/proc/below/out",
)  # the parent or its parent is a file, a name is too long, a link to itself, a file system without new files


@pytest.mark.parametrize("path", UNWRITABLE)
def test_what_cannot_be_written_is_a_sentence_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    with pytest.raises(StorageError, match=r"^cannot write ") as raised:
        write_bytes(Path(path), b"")
    assert path in str(raised.value)
    with pytest.raises(StorageError, match=r"^cannot write "), new_folder(Path(path)):
        pytest.fail("the block ran")


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"out: .*file is not a folder$"):
        write_bytes(tmp_path / "file" / "out", b"")


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="it is a file"), new_folder(tmp_path / "file"):
        pytest.fail("the block ran")
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(StorageError, match="Is a directory"):
        write_bytes(tmp_path / "folder", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_a_library_made_private_can_be_read_by_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as folder:
        (folder / "weights").mkdir(0o700)
        (folder / "weights" / "program").touch(0o700)
        (folder / "weights" / "data").touch(0o600)
    made = [tmp_path / "run", *sorted((tmp_path / "run").rglob("*"))]
    assert [oct(path.stat().st_mode & 0o777) for path in made] == ["0o755", "0o755", "0o644", "0o755"]


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOENT, errno.EIO, errno.EROFS, errno.EDQUOT, errno.ENOSPC])
def test_every_refusal_of_the_system_is_a_storage_error(number: int) -> None:
    with pytest.raises(StorageError, match="somewhere"), storage_errors(Path("somewhere")):
        raise OSError(number, os.strerror(number))


def test_a_broken_connection_is_not_a_refusal_to_write() -> None:
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError(), OSError("no number")):
        with pytest.raises(type(error)), storage_errors(Path("somewhere")):
            raise error


@pytest.mark.parametrize("content", [NESTED, '{"a":' * 100_000, "", "nonsense", "\udcff", "[1e400", "9" * 5000])
def test_a_document_that_is_no_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    for read in (read_json, lambda path: read_model(path, Card)):
        with pytest.raises(CorruptError, match=r"document\.json is not a valid") as raised:
            read(path)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["absent", "x" * 300, "absent/" * 2000, "nul\0", ".", "/proc/1/mem"])
def test_a_document_that_cannot_be_read(path: str) -> None:
    with pytest.raises(MissingError):
        read_json(Path(path))


def test_a_file_that_cannot_be_hashed() -> None:
    with pytest.raises(MissingError, match="cannot read /proc/self/mem: Input/output error"):
        sha256_of(Path("/proc/self/mem"))


def test_weights_that_are_none(tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        for content in (b"", b"nonsense", NESTED.encode()):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(CorruptError, match=r"weights\.\w+ is not a (valid JSON document|file of weights)"):
                read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["config.json", CARD])
def test_a_checkpoint_whose_document_is_nested(tmp_path: Path, tiny_checkpoint: Path, name: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in tiny_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).write_text(NESTED)
    with pytest.raises(CorruptError, match=f"{name} is not a valid"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "content",
    [NESTED, "[]", '{"beta_schedule": []}', '{"trained_betas": [1]}', '{"trained_betas": [0.1, NaN]}',
     '{"trained_betas": [0.1, 7]}', '{"beta_schedule": "linear", "num_train_timesteps": 0}', '{"trained_betas": "x"}'],
)  # fmt: skip
def test_a_scheduler_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(content)
    with pytest.raises(CorruptError, match=r"scheduler_config\.json is not "):
        read_schedule(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("sample_size", "8"), ("sample_size", [8]), ("sample_size", 0), ("sample_size", 10**12), ("out_channels", None),
     ("num_class_embeds", -3)],
)  # fmt: skip
def test_a_configuration_with_impossible_numbers(tiny_checkpoint: Path, key: str, value: object) -> None:
    found = read_checkpoint(tiny_checkpoint)
    found.config[key] = value
    with pytest.raises(CorruptError, match=rf"config\.json has {key} .*: it must be 1 … 65536"):
        _ = found.image_shape, found.classes


@pytest.mark.parametrize("spec", ["x" * 300, "~nobody-of-this-name/images", "nul\0", "a/" * 3000])
def test_a_data_set_whose_path_cannot_exist(spec: str) -> None:
    with pytest.raises(MissingError, match="there is no data set"):
        load_images(spec)


def test_a_picture_that_the_system_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=r"cannot read .*a\.png: Input/output error"):
        load_images(str(tmp_path / "images"))


@pytest.mark.parametrize("path", ["x" * 300, "a" * 300 + "/b", "~/" + "b" * 300, "x" * 5000, "a/b/c"])
def test_a_checkpoint_whose_path_cannot_exist(path: str) -> None:
    with pytest.raises(RddEdgeError, match="there is no checkpoint"):
        read_checkpoint(Path(path))
