"""Every kind of source makes the same ImageSet, and whatever is wrong with one is a sentence that names the file."""

from __future__ import annotations

import io
import json
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from PIL import Image

from rdd_edge.data import load_images
from rdd_edge.data.images import shuffled
from rdd_edge.errors import CorruptError, DataError, MissingError, RddEdgeError
from rdd_edge.reading.pickles import parse_pickle

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(count: int = 6, size: int = 32, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def write_pngs(folder: Path, images: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:03}.png").write_bytes(png(image))
    return folder


def write_classes(folder: Path, images: NDArray[np.uint8]) -> Path:
    """Two images a class."""
    for label, name in enumerate(CLASSES):
        write_pngs(folder / name, images[2 * label : 2 * label + 2])
    return folder


def write_cifar(folder: Path, images: NDArray[np.uint8], labels: list[int]) -> Path:
    """Two batches, as Python 2 wrote them: protocol 2, byte strings for keys."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    half = len(images) // 2
    for number, part in enumerate((slice(0, half), slice(half, None)), start=1):
        batch = {b"data": np.ascontiguousarray(rows[part]), b"labels": labels[part]}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [c.encode() for c in CLASSES]}, protocol=2))
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": rows, b"labels": labels}, protocol=2))
    return folder


def write_parquet(path: Path, cells: list[dict[str, object]], metadata: bool = True) -> Path:
    table = pyarrow.Table.from_pylist(cells)
    if metadata:
        features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)
    return path


def cells(images: NDArray[np.uint8], labels: list[int], column: str = "img") -> list[dict[str, object]]:
    pairs = zip(images, labels, strict=True)
    return [{column: {"bytes": png(image), "path": None}, "label": label} for image, label in pairs]


LABELS = [0, 0, 1, 1, 2, 2]


def sources(folder: Path, images: NDArray[np.uint8]) -> dict[str, Path]:
    """The same six labelled images in every form that names its classes."""
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(write_cifar(folder / "cifar", images, LABELS), "cifar-10-batches-py")
    write_parquet(folder / "table" / "data" / "train-0.parquet", cells(images[:4], LABELS[:4]))
    write_parquet(folder / "table" / "data" / "train-1.parquet", cells(images[4:], LABELS[4:]))
    write_parquet(folder / "table" / "data" / "test-0.parquet", cells(images[:1], LABELS[:1]))
    return {
        "cifar": folder / "cifar",
        "archive": folder / "cifar.tar.gz",
        "parquet folder": folder / "table",
        "parquet file": write_parquet(folder / "one.parquet", cells(images, LABELS, "image")),
        "class folders": write_classes(folder / "classes", images),
    }


def test_every_labelled_source_gives_the_same_set(tmp_path: Path) -> None:
    images = pictures()
    found = {kind: load_images(str(path)) for kind, path in sources(tmp_path, images).items()}
    for data in found.values():
        np.testing.assert_array_equal(data.images, images)
        assert data.labels is not None
        assert data.labels.dtype == np.int64
        assert data.labels.tolist() == LABELS
        assert data.classes == CLASSES
        assert data.image_shape == (3, 32, 32)
    assert len({data.sha256 for data in found.values()}) == 1


def test_imagenet64_batches_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    images = pictures(5, size=64)
    rows = images.transpose(0, 3, 1, 2).reshape(5, -1)
    for number, part in ((2, slice(0, 3)), (10, slice(3, 5))):
        labels = np.arange(1, 6)[part]
        np.savez(tmp_path / f"train_data_batch_{number}.npz", data=rows[part], labels=labels, mean=rows.mean(0))
    np.savez(tmp_path / "val_data.npz", data=rows, labels=np.ones(5, int))
    data = load_images(str(tmp_path))
    np.testing.assert_array_equal(data.images, images)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.classes == ("0", "1", "2", "3", "4")
    assert len(load_images(str(tmp_path / "train_data_batch_10.npz")).images) == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_folder_is_unlabelled(tmp_path: Path, channels: int) -> None:
    images = pictures(channels=channels)
    (write_pngs(tmp_path / "plain", images) / "notes.txt").write_text("passed over")
    data = load_images(str(tmp_path / "plain"))
    np.testing.assert_array_equal(data.images, images)
    assert (data.labels, data.classes) == (None, None)
    with pytest.raises(DataError, match="plain has no labels"):
        data.require_labels()


def test_parquet_without_names_numbers_its_classes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", cells(pictures(), LABELS), metadata=False)
    assert load_images(str(path)).classes == ("0", "1", "2")


def test_image_size_crops_the_centre_and_averages(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200  # the centred square is uniform, the rest black
    write_pngs(tmp_path / "mixed", wide[None])
    (tmp_path / "mixed" / "tall.png").write_bytes(png(np.full((10, 6, 3), 100, np.uint8)))
    data = load_images(str(tmp_path / "mixed"), 2)
    np.testing.assert_array_equal(data.images[0], np.full((2, 2, 3), 200))
    np.testing.assert_array_equal(data.images[1], np.full((2, 2, 3), 100))


def test_image_size_reaches_every_source(tmp_path: Path) -> None:
    for path in sources(tmp_path, pictures()).values():
        assert load_images(str(path), 16).images.shape == (6, 16, 16, 3)
    assert load_images("digits", 16).images.shape == (1797, 16, 16, 1)


def test_digits() -> None:
    data = load_images("digits")
    assert data.images.shape == (1797, 8, 8, 1)
    assert (data.images.min(), data.images.max()) == (0, 255)
    assert data.classes == tuple("0123456789")
    assert load_images("digits").sha256 == data.sha256


def test_shuffled_is_a_permutation_that_depends_on_the_seed_alone() -> None:
    order = shuffled(1797, 3)
    np.testing.assert_array_equal(np.sort(order), np.arange(1797))
    np.testing.assert_array_equal(shuffled(1797, 3), order)
    assert not np.array_equal(shuffled(1797, 4), order)


def refusal(path: Path, size: int | None = None) -> RddEdgeError:
    with pytest.raises(RddEdgeError) as caught:
        load_images(str(path), size)
    assert "\n" not in str(caught.value)
    assert not list(path.parent.rglob("images/*/meta.json"))  # nothing half-made was kept
    return caught.value


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    images = pictures(4, size=8)
    assert isinstance(refusal(tmp_path / "nowhere"), MissingError)
    (tmp_path / "empty").mkdir()
    assert "empty has no images" in str(refusal(tmp_path / "empty"))

    (write_pngs(tmp_path / "broken", images) / "001.png").write_bytes(png(images[0])[:60])
    assert "001.png is not a readable image" in str(refusal(tmp_path / "broken"))

    (write_pngs(tmp_path / "sizes", images) / "009.png").write_bytes(png(images[0][:4]))
    error = str(refusal(tmp_path / "sizes"))
    assert "000.png is 8×8" in error
    assert "009.png is 8×4" in error

    (write_pngs(tmp_path / "kinds", images) / "009.png").write_bytes(png(images[0][..., :1]))
    error = str(refusal(tmp_path / "kinds", 8))
    assert "000.png is colour" in error
    assert "009.png is grayscale" in error

    Image.fromarray(np.zeros((8, 8), np.uint16)).save(write_pngs(tmp_path / "deep", images) / "000.png")
    assert "000.png has more than 8 bits" in str(refusal(tmp_path / "deep"))

    write_classes(tmp_path / "loose", pictures(6, 8))
    (tmp_path / "loose" / "stray.png").write_bytes(png(images[0]))
    assert "stray.png has no label" in str(refusal(tmp_path / "loose"))

    (write_classes(tmp_path / "hollow", pictures(6, 8)) / "elk").mkdir()
    assert "elk has no images" in str(refusal(tmp_path / "hollow"))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    images = pictures()
    (tmp_path / "data.csv").write_text("1,2")
    assert "data.csv is not a data set" in str(refusal(tmp_path / "data.csv"))
    for name in ("a.parquet", "a.npz", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"not what its name says")
        error = refusal(tmp_path / name)
        assert isinstance(error, CorruptError)
        assert name in str(error)
    whole = write_parquet(tmp_path / "whole.parquet", cells(images, LABELS)).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    assert isinstance(refusal(tmp_path / "cut.parquet"), CorruptError)
    write_parquet(tmp_path / "text.parquet", [{"text": "no image"}], metadata=False)
    assert "no column img or image" in str(refusal(tmp_path / "text.parquet"))
    write_parquet(tmp_path / "null.parquet", [*cells(images[:1], [0]), {"img": {"bytes": png(images[1])}}])
    assert "null.parquet, row 1: its label is None" in str(refusal(tmp_path / "null.parquet"))
    write_parquet(tmp_path / "high.parquet", cells(images[:2], [0, 3]))
    assert "has the label 3, outside 0 … 2" in str(refusal(tmp_path / "high.parquet"))
    write_parquet(tmp_path / "bad.parquet", [{"img": {"bytes": b"no png"}, "label": 0}])
    assert "bad.parquet, row 0 is not a readable image" in str(refusal(tmp_path / "bad.parquet"))
    schema = pyarrow.parquet.read_schema(tmp_path / "high.parquet")
    pyarrow.parquet.ParquetWriter(tmp_path / "none.parquet", schema).close()
    assert "none.parquet holds no images" in str(refusal(tmp_path / "none.parquet"))


def test_npz_that_cannot_be_used(tmp_path: Path) -> None:
    rows = pictures(3, 4).reshape(3, -1)
    path = tmp_path / "train_data_batch_1.npz"
    np.savez(path, data=rows)
    assert "has no labels" in str(refusal(path))
    np.savez(path, data=rows, labels=[0, 1, 2])
    assert "not integers from 1" in str(refusal(path))
    np.savez(path, data=rows[:, :47], labels=[1, 2, 3])
    assert "not square images" in str(refusal(path))
    np.savez(path, data=rows.astype(np.float32), labels=[1, 2, 3])
    assert "not a matrix of bytes" in str(refusal(path))
    np.savez(path, data=rows, labels=[1, 2, 3])
    content = bytearray(path.read_bytes())
    content[content.index(rows.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert isinstance(refusal(path), CorruptError)


def test_cifar_that_cannot_be_used(tmp_path: Path) -> None:
    images = pictures()
    folder = write_cifar(tmp_path / "cifar", images, LABELS)
    whole = (folder / "data_batch_2").read_bytes()
    (folder / "data_batch_2").write_bytes(whole[:-100])
    error = refusal(folder)
    assert isinstance(error, CorruptError)
    assert "data_batch_2" in str(error)
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}))
    assert "data_batch_2 has no labels" in str(refusal(folder))
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}))
    assert "1 images and 2 labels" in str(refusal(folder))
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": np.zeros((1, 5), np.uint8), "labels": [1]}))
    assert "no images of 3 × 32 × 32" in str(refusal(folder))


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "touched"
    for content in (Attack(target), {"data": Attack(target)}):
        with pytest.raises(CorruptError, match=r"which no data set needs"):
            parse_pickle(pickle.dumps(content, protocol), "it")
    assert not target.exists()
    for harmful in (b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n(S'x'\ntR."):
        with pytest.raises(CorruptError, match="which no data set needs"):
            parse_pickle(harmful, "it")


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_pickle_reads_integer_arrays(protocol: int, order: str) -> None:
    arrays = {kind: np.asarray(np.arange(6).reshape(2, 3), kind, order=order) for kind in ("uint8", ">i4", "<i8")}
    found = parse_pickle(pickle.dumps(arrays, protocol), "it")
    for kind, array in arrays.items():
        np.testing.assert_array_equal(found[kind], array)
    with pytest.raises(CorruptError, match="is not an integer array"):
        parse_pickle(pickle.dumps({"data": np.array([object()])}, 2), "it")


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_file_is_read_or_refused_with_a_sentence(tmp_path: Path, seed: int) -> None:
    draws = random.Random(seed)
    path = draws.choice(list(sources(tmp_path, pictures()).values()))
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    file = draws.choice(files)
    content = bytearray(file.read_bytes())
    place = draws.randrange(len(content))
    if draws.random() < 0.5:
        del content[place:]
    else:
        content[place : place + draws.choice([1, 4])] = draws.randbytes(draws.choice([1, 4]))
    file.write_bytes(content)
    refused = None
    try:
        assert load_images(str(path)).images.shape[1:] == (32, 32, 3)
    except RddEdgeError as error:
        refused = str(error)
    assert refused is None or (str(tmp_path) in refused and "\n" not in refused)
