"""What a file may declare: bombs and broken values are refused before memory or time is spent on them."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from networks import small_unet
from PIL import Image
from records import write_run
from safetensors.torch import load_file, save_file

from rdd_edge.benchmarking.record import RunRecord, Samples
from rdd_edge.data import load_images
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.external_teacher import read_schedule
from rdd_edge.distillation.logs import RunLog
from rdd_edge.distillation.state import load_latest, save_state
from rdd_edge.drawing.charts import Point, frontier
from rdd_edge.drawing.grid import grid_png
from rdd_edge.errors import CorruptError, DataError, MissingError, RddEdgeError, UsageError
from rdd_edge.files import sha256_of, write_model
from rdd_edge.metrics.classifiers import save_classifier
from rdd_edge.metrics.extractors import load_extractor
from rdd_edge.metrics.networks import Classifier, ExtractorConfig
from rdd_edge.reading.archives import array_blocks, tar_members
from rdd_edge.reading.documents import parse_json, read_model
from rdd_edge.reading.images import decode_image
from rdd_edge.reading.pickles import parse_pickle
from rdd_edge.reading.tables import table_rows
from rdd_edge.reading.tensors import read_weights
from rdd_edge.reporting.report import report

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a": 1, "a": 1}', "has the key 'a' twice"),
        (b'{"a": [{"b": 1, "b": 2}]}', "has the key 'b' twice"),
        (b"[NaN]", "expected value"),
        (b"[-Infinity]", "number"),
        (b"[1e400]", "too large a number"),
        (b'"\\ud800"', "hex escape"),
        (b'"\xff"', "unicode"),
        (b"[" * 300 + b"]" * 300, "recursion limit"),
        (b"[" + b"[]," * 1_100_000 + b"1]", "too large"),
        (b"\xff\xfe{\x00}\x00", "expected value"),
    ],
)
def test_documents_that_are_refused(content: bytes, fault: str) -> None:
    with pytest.raises(CorruptError, match=rf"^it is not a valid JSON document: .*{fault}"):
        parse_json(content, "it")


def test_a_message_is_one_line_of_bounded_length() -> None:
    error = CorruptError("a\x1b[2Jb\nc\x00" + "x" * 1_000_000 + "end")
    assert str(error).startswith("a?[2Jb?c?xxx")
    assert str(error).endswith("end")
    assert len(str(error)) == 2000


def png(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    with pytest.raises(DataError, match=r"^it has 169000000 pixels: shrink it to at most 67108864"):
        decode_image(png(13_000, 13_000), "it", np.asarray)


def test_a_format_that_starts_another_program_is_not_read() -> None:
    with pytest.raises(DataError, match="is not a readable image"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it", np.asarray)


@pytest.mark.parametrize("label", [30_000_000, 2**62, -1])
def test_a_label_that_no_data_set_has(tmp_path: Path, label: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "png")
    table = pyarrow.Table.from_pylist([{"img": {"bytes": buffer.getvalue()}, "label": label}])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"row 0.*{label}"):
        load_images(str(tmp_path / "a.parquet"))
    np.savez(tmp_path / "a.npz", data=np.zeros((1, 48), np.uint8), labels=[label])
    with pytest.raises(DataError, match="not integers from 1 to 65536"):
        load_images(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x02}r" + struct.pack("<I", 2**30) + b".",  # a memo of a billion places
        b"\x80\x02](" + b"]h\x00" * 3 + b"\x8b\xff\xff\xff\x7f.",
        b"\x80\x02}X\x04\x00\x00\x00data(cnumpy.core.multiarray\n_reconstruct\n" + b"(tR0" * 100 + b"u.",
        pickle.dumps({1: 2}),
    ],
)
def test_a_pickle_larger_than_its_file(bomb: bytes) -> None:
    with pytest.raises(CorruptError, match="it is not a pickle of a data set"):
        parse_pickle(bomb, "it")


def test_names_and_labels_that_repeat_one_another(tmp_path: Path) -> None:
    """Lists of lists of lists: a few hundred bytes that stand for a billion labels."""
    inner: list[Any] = [1] * 1000
    labels = [[inner] * 1000] * 1000
    folder = tmp_path / "cifar"
    folder.mkdir()
    batch = {"data": np.zeros((1000, 3072), np.uint8), "labels": labels}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(DataError, match="not a list of integers"):
        load_images(str(folder))


def test_an_archive_that_unpacks_to_more_than_it_should(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (100, 1_000_000)})
        file.write(bytes(100_000_000))
    with pytest.raises(CorruptError, match="data unpacks to 100000128 bytes"):
        list(array_blocks(path, "data"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("data_batch_1")
        entry.size = 1_000_000
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    packed = gzip.compress(buffer.getvalue())
    with pytest.raises(CorruptError, match="is not a readable tar archive: data_batch_1 has 1000000 bytes"):
        [member.read() for member in tar_members(gzip.GzipFile(fileobj=io.BytesIO(packed)), "it", 500_000)]
    with pytest.raises(CorruptError, match="is not a readable tar archive: it unpacks to more than is allowed"):
        list(tar_members(gzip.GzipFile(fileobj=io.BytesIO(packed)), "it", 500_000))


def test_a_table_that_names_one_value_many_times(tmp_path: Path) -> None:
    """Two kilobytes that stand for 5 GB: few values at a time are unpacked."""
    value = b"\x89PNG" + bytes(5_000_000)
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), pyarrow.array([value]))
    path = tmp_path / "a.parquet"
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    pyarrow.parquet.write_table(pyarrow.table({"img": column}), path, **options)
    tracemalloc.start()
    assert next(table_rows(path, ["img"])) == (value,)
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()
    value = bytes(70_000_000)
    pyarrow.parquet.write_table(pyarrow.table({"img": [value]}), path, **options)
    with pytest.raises(CorruptError, match="unpacks to more than 100 times its size"):
        next(table_rows(path, ["img"]))


def test_a_footer_for_which_pyarrow_aborts(tmp_path: Path) -> None:
    """One byte makes BYTE_ARRAY a BOOLEAN, which cannot have the statistics that follow: asked for them, it aborts."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"img": [b"a"], "label": [0]}), path)
    content = path.read_bytes()
    assert content.count(b"\x15\x0c\x25") == 1
    path.write_bytes(content.replace(b"\x15\x0c\x25", b"\x15\x00\x25"))
    with pytest.raises(CorruptError, match="is not a readable parquet file"):
        load_images(str(path))


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "sound.pth")
    with zipfile.ZipFile(tmp_path / "sound.pth") as source, zipfile.ZipFile(tmp_path / "a.pth", "w", 8) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    assert read_weights(tmp_path / "sound.pth")["a"].shape == (1000,)
    with pytest.raises(CorruptError, match="it is compressed"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers_per_block", 10**30), ("layers_per_block", 101), ("block_out_channels", [10**9, 8]),
     ("block_out_channels", [8] * 1000), ("num_class_embeds", 2**40)],
)  # fmt: skip
def test_a_configuration_that_would_take_for_ever_to_build(checkpoint: Path, key: str, value: object) -> None:
    (checkpoint / "rdd_edge.json").unlink()
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CorruptError, match=f"has {key}"):
        read_checkpoint(checkpoint)


def test_a_configuration_of_a_larger_network_is_refused_before_it_is_built(checkpoint: Path) -> None:
    (checkpoint / "rdd_edge.json").unlink()
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block_out_channels": [65_536, 65_536]}))
    with pytest.raises(CorruptError, match=r"has \d+ weights, and its config.json is of a network of \d{12,}"):
        read_checkpoint(checkpoint).load()


def test_a_misspelt_key_of_a_configuration_is_refused(checkpoint: Path) -> None:
    (checkpoint / "rdd_edge.json").unlink()
    path = checkpoint / "config.json"
    path.write_text(path.read_text().replace('"norm_num_groups"', '"norm_num_group"'))
    with pytest.raises(CorruptError, match=r"config\.json has a key that no UNet2DModel has: norm_num_group"):
        read_checkpoint(checkpoint).load()


def without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["conv_out.weight"]
    tensors["other"] = torch.zeros(1, 32, 3, 3)  # as many values


def with_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_out.weight"][0, 0, 0, 0] = torch.nan


def as_integers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_out.weight"] = tensors["conv_out.weight"].to(torch.int32)


@pytest.mark.parametrize(
    ("change", "fault"),
    [(without, "does not fit its config.json"), (with_nan, "NaN or infinity in conv_out.weight"),
     (as_integers, "conv_out.weight is of type I32")],
)  # fmt: skip
def test_weights_that_are_not_those_of_the_network(
    checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None], fault: str
) -> None:
    (checkpoint / "rdd_edge.json").unlink()
    tensors = load_file(checkpoint / WEIGHTS)
    change(tensors)
    save_file(tensors, checkpoint / WEIGHTS)
    with pytest.raises(CorruptError, match=fault):
        read_checkpoint(checkpoint).load()


def test_a_scheduler_beside_a_card_is_the_one_that_was_written(checkpoint: Path) -> None:
    path = checkpoint / "scheduler_config.json"
    path.write_text(path.read_text().replace('"sample"', '"epsilon"'))
    with pytest.raises(CorruptError, match=r"scheduler_config\.json is not the file that .*names"):
        read_checkpoint(checkpoint)
    path.unlink()
    with pytest.raises(MissingError, match="scheduler_config"):
        read_checkpoint(checkpoint)
    card = json.loads((checkpoint / "rdd_edge.json").read_text())
    (checkpoint / "rdd_edge.json").write_text(json.dumps(card | {"scheduler_sha256": None}))
    assert read_checkpoint(checkpoint).card is not None  # of before the hash: no scheduler is asked for


@pytest.mark.parametrize(
    "settings",
    [{"num_train_timesteps": 2**31}, {"trained_betas": [0.1, 1.5]}, {"trained_betas": [0.1, -0.5]},
     {"trained_betas": [1.0, 0.5, 0.5]}, {"beta_start": 3.0}, {"num_train_timesteps": "9"}],
)  # fmt: skip
def test_a_schedule_that_has_no_times(tmp_path: Path, settings: dict[str, object]) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"beta_schedule": "linear", **settings}))
    with pytest.raises(CorruptError, match="is not a schedule of betas"):
        read_schedule(path)


CONFIG = ExtractorConfig(name="x", architecture="densenet", widths=(1, 1), image_shape=(1, 8, 8), classes=3)


@pytest.mark.parametrize("values", [{"widths": [10**9]}, {"widths": [1000, 1000]}, {"image_shape": [1, 10**9, 8]}])
def test_an_extractor_that_would_take_for_ever_to_build(tmp_path: Path, values: dict[str, object]) -> None:
    save_classifier(tmp_path / "x", Classifier(CONFIG))
    (tmp_path / "x/config.json").write_text(json.dumps(CONFIG.model_dump() | values))
    with pytest.raises(CorruptError, match="is not a valid ExtractorConfig"):
        load_extractor(tmp_path / "x")


def test_an_extractor_is_the_one_that_was_trained(tmp_path: Path) -> None:
    save_classifier(tmp_path / "x", Classifier(CONFIG))
    path = tmp_path / "x/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"is not the file that .*rdd_edge\.json names"):
        load_extractor(tmp_path / "x")
    (tmp_path / "x/rdd_edge.json").unlink()  # written before it had a card
    load_extractor(tmp_path / "x")
    tensors = load_file(path)
    tensors["features.0.weight"][0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(CorruptError, match=r"NaN or infinity in features\.0\.weight"):
        load_extractor(tmp_path / "x")


@pytest.mark.parametrize(
    "change",
    [lambda state: state["shards"].update({"/etc/passwd": "0" * 64}), lambda state: state["shards"].clear(),
     lambda state: state["shards"].update({"state-00000.safetensors\x00": "0" * 64}),
     lambda state: state.update(step=7), lambda state: state.update(shapes={"a": [2, 2]})],
)  # fmt: skip
def test_a_broken_newest_state_leaves_the_one_before(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for step in (1, 2):
        save_state(tmp_path, step, {"a": torch.full((3,), float(step))})
    path = tmp_path / "step-00000002/state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 1
    assert found[1]["a"].tolist() == [1, 1, 1]
    assert len(found[2]) == 1


def test_a_broken_line_of_a_log_is_dropped(tmp_path: Path) -> None:
    lines = [b'{"step": 0, "loss": 1.0}', b'{"step": 1, "loss": \xff}', b'{"step": Infinity}', b'{"step": {}}',
             b'{"step": 2, "loss": 1.0}', b'{"step": 9, "loss": 1.0}', b'{"st']  # fmt: skip
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/teacher.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "logs/teacher.seconds").write_text("nan")
    RunLog(tmp_path, "teacher", 5, False).close()
    assert (tmp_path / "logs/teacher.jsonl").read_bytes().splitlines() == [lines[0], lines[4]]


@pytest.mark.parametrize("name", ["images.u8", "labels.i64", "meta.json"])
def test_a_cached_set_is_proven_whatever_its_times(tmp_path: Path, name: str) -> None:
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), ord(label), np.uint8)).save(tmp_path / "set" / label / "0.png")
    before = load_images(str(tmp_path / "set"))
    images = np.array(before.images)
    (path,) = (tmp_path / "cache" / "images").glob(f"*/{name}")
    times, content = (path.stat().st_atime_ns, path.stat().st_mtime_ns), path.read_bytes()
    changed = content.replace(b'"b"', b'"c"') if name == "meta.json" else bytes([content[0] ^ 1]) + content[1:]
    assert changed != content
    path.write_bytes(changed)
    os.utime(path, ns=times)
    after = load_images(str(tmp_path / "set"))
    np.testing.assert_array_equal(after.images, images)
    assert (after.classes, after.sha256, list(after.labels)) == (("a", "b"), before.sha256, [0, 1])


def test_a_class_whose_name_no_document_holds(tmp_path: Path) -> None:
    for name in (b"good", b"bad\xff"):
        folder = os.path.join(os.fsencode(tmp_path), b"set", name)
        os.makedirs(folder)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(os.path.join(folder, b"0.png"))
    with pytest.raises(DataError, match=r"has the class 'bad\\udcff'"):
        load_images(str(tmp_path / "set"))


def test_a_grid_that_would_fill_the_memory() -> None:
    with pytest.raises(UsageError, match="would have 3145728 x 48 pixels"):
        grid_png(np.zeros((1, 65_536, 1, 1), np.uint8))


def test_times_of_zero_are_drawn(tmp_path: Path) -> None:
    assert "nan" not in frontier([Point(0.0, 1.0, "a", False), Point(0.0, 2.0, "b", True)], "fd")
    for name in ("server", "fake"):
        folder = write_run(tmp_path / name, name)
        record = read_model(folder / "record.json", RunRecord)
        write_model(folder / "record.json", record.model_copy(update={"latency_ms": (0.0,) * 9}))
    report([tmp_path / "server", tmp_path / "fake"], tmp_path / "out.html", baseline=tmp_path / "server")
    assert "The baseline has no time" in (tmp_path / "out.html").read_text()


def test_a_run_of_no_samples_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    record = read_model(folder / "record.json", RunRecord)
    (folder / "samples.u8").write_bytes(b"")
    (folder / "samples.f32").unlink()
    empty = sha256_of(folder / "samples.u8")
    samples = Samples(count=0, height=8, width=8, channels=1, seed=0, u8_sha256=empty, floats=0, f32_sha256=None)
    write_model(folder / "record.json", record.model_copy(update={"samples": samples}))
    plan = json.loads((folder / "plan.json").read_text())
    plan["accuracy"] |= {"samples": 0}
    (folder / "plan.json").write_text(json.dumps(plan))
    report([folder], tmp_path / "out.html")


@pytest.mark.parametrize("read", [read_checkpoint, load_extractor, read_schedule, read_weights])
@pytest.mark.parametrize("path", ["x" * 300, "x/" * 3000, "nul\0"])
def test_a_path_that_cannot_exist(read: Callable[[Path], object], path: str) -> None:
    with pytest.raises(RddEdgeError):
        read(Path(path))


def test_small_networks_load_as_before(tmp_path: Path, tiny_checkpoint: Path) -> None:
    model = read_checkpoint(tiny_checkpoint).load()
    for name, value in small_unet().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
