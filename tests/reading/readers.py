"""Every reader of a file from outside, with sound files and what it makes of them, for test_fuzz.py."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from bundles import write_fake_bundle
from networks import small_unet
from PIL import Image
from records import REAL, Means, write_run, write_scores
from safetensors.torch import save_file
from tiny import tiny
from torch import nn
from torchvision_weights import densenet, resnet

from rdd_edge.benchmarking import devicectl
from rdd_edge.benchmarking.returned import unpack
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import Plan, read_bundle
from rdd_edge.data import load_images
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.external_teacher import read_schedule
from rdd_edge.diffusion.saving import save_checkpoint, save_rounded
from rdd_edge.distillation.config import Lpips
from rdd_edge.distillation.logs import RunLog, stage_seconds
from rdd_edge.distillation.losses.lpips import PerceptualDistance, load_lpips
from rdd_edge.distillation.run_folder import RunFile, read_training_run
from rdd_edge.distillation.state import load_latest, save_state
from rdd_edge.evaluation.scores import read_scores
from rdd_edge.files import sha256_of, write_model
from rdd_edge.metrics.classifiers import copy_classifier, load_feature_network, save_classifier
from rdd_edge.metrics.extractors import load_extractor
from rdd_edge.metrics.inception import find_weights
from rdd_edge.metrics.networks import Classifier, ExtractorConfig
from rdd_edge.metrics.reference import real_reference
from rdd_edge.metrics.resnet20 import ResNet20, load_resnet20
from rdd_edge.reading.documents import read_model
from rdd_edge.reading.tensors import load_into, read_weights
from rdd_edge.reporting.report import report

Found = tuple[Any, Any]  # what names the result in records, such as a SHA-256, and the result
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LABELS = [0, 0, 1, 1, 2, 2]
SMALL = {"block_out_channels": (8, 8), "norm_num_groups": 4}


@dataclass(frozen=True)
class Reader:
    """make: writes sound files into a folder.  read: (identity, result) of a folder; None for a reader without one.

    keep: files that are not mutated.  weight: of this reader among the inputs.  proven: every change of a file is
    refused, or its result the same.  heals: and never refused, since what is broken is made again or left out.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Found]
    proven: bool = False
    keep: tuple[str, ...] = ()
    weight: float = 1.0
    heals: bool = False


def _state(folder: Path) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in read_checkpoint(folder).load().state_dict().items()}


def _write_checkpoint(folder: Path) -> None:
    save_checkpoint(folder / "net", small_unet(**SMALL), role="student", method="rdd", sampling_steps=1)


def _write_foreign(folder: Path) -> None:
    _write_checkpoint(folder)
    (folder / "net" / "rdd_edge.json").unlink()


def _write_packed(folder: Path) -> None:
    _write_checkpoint(folder)
    packed = save_rounded(read_checkpoint(folder / "net"), folder / "packed", "bfloat16").folder
    for file in (folder / "net").iterdir():
        file.unlink()
    (folder / "net").rmdir()
    packed.rename(folder / "net")


def _read_checkpoint(folder: Path) -> Found:
    found = read_checkpoint(folder / "net")
    _ = found.image_shape, found.classes
    return (found.sha256, found.card, sha256_of(folder / "net/config.json")), _state(folder / "net")


def _write_schedule(folder: Path) -> None:
    (folder / "scheduler_config.json").write_text(
        '{"_class_name": "DDPMScheduler", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, '
        '"num_train_timesteps": 1000, "prediction_type": "epsilon", "trained_betas": null, "clip_sample": true}'
    )


def _read_schedule(folder: Path) -> Found:
    found = read_schedule(folder / "scheduler_config.json")
    assert torch.isfinite(found.times).all() and (found.times.diff() >= 0).all() and len(found.times) > 1
    return sha256_of(folder / "scheduler_config.json"), (found.times.tolist(), found.prediction)


def _write_extractor(folder: Path) -> None:
    for name, architecture in (("dense", "densenet"), ("plain", "cnn")):
        config = ExtractorConfig(
            name=name, architecture=architecture, widths=(2, 2), growth=4, stem=4, image_shape=(1, 8, 8), classes=3
        )
        torch.manual_seed(0)
        save_classifier(folder / name, Classifier(config))


def _read_extractor(folder: Path) -> Found:
    found = [load_extractor(folder / name) for name in ("dense", "plain")]
    features = [np.concatenate(list(one.batches(REAL.images[:2]))).tobytes() for one in found]
    return [one.sha256 for one in found], features


def _write_torchvision(folder: Path) -> None:
    torch.save(resnet((1, 1, 1, 1), 1, width=2), folder / "net.pth")
    save_file(densenet((1, 1), growth=2, width=4), folder / "dense.safetensors")


def _read_torchvision(folder: Path) -> Found:
    names, features = ("net.pth", "dense.safetensors"), []
    for name in names:
        copy_classifier(folder / name, folder / f"made-{name}", (1, 32, 32))
        features.append(load_feature_network(folder / f"made-{name}")[1](torch.zeros(1, 1, 32, 32)).numpy().tobytes())
    return [sha256_of(folder / name) for name in names], features


def _write_state(folder: Path) -> None:
    for step in (10, 20):
        tensors = {"a": torch.arange(300.0) * step, "b.c": torch.full((2, 3), step), "d": torch.tensor(float(step))}
        save_state(folder / "stage", step, tensors, shard_bytes=400)


def _read_state(folder: Path) -> Found:
    """Either of the two states: the newer one, or the older one where the newer is broken."""
    found = load_latest(folder / "stage")
    assert found is not None and found[0] in (10, 20)
    step, tensors, _ = found
    assert torch.equal(tensors["a"], torch.arange(300.0) * step)
    assert torch.equal(tensors["b.c"], torch.full((2, 3), step))
    assert torch.equal(tensors["d"], torch.tensor(float(step)))
    return None, None


def _write_logs(folder: Path) -> None:
    log = RunLog(folder, "teacher", 0, False)
    for step in range(0, 100, 20):
        log.write(step, {"loss": 0.5 + step, "grad_norm": None})


def _read_logs(folder: Path) -> Found:
    RunLog(folder, "teacher", 60, False)
    for line in (folder / "logs/teacher.jsonl").read_bytes().split(b"\n")[:-1]:
        assert isinstance(json.loads(line), dict)
    assert 0 <= stage_seconds(folder, "teacher") < math.inf
    return None, None


def _images(folder: Path, name: str = "set") -> Found:
    data = load_images(str(folder / name))
    labels = None if data.labels is None else data.labels.tolist()
    return data.sha256, (np.array(data.images).tobytes(), labels, data.classes)


def _write_folder(folder: Path, side: int = 8) -> None:
    for label, name in enumerate("ab"):
        (folder / "set" / name).mkdir(parents=True)
        for i, form in enumerate(("png", "jpeg", "bmp")):
            image = Image.fromarray(PIXELS[2 * label + i % 2, :side, :side])
            image.save(folder / "set" / name / f"{i}.{form}", format=form)


def _write_cached(folder: Path) -> None:
    _write_folder(folder)
    _images(folder)


def _write_npz(folder: Path) -> None:
    rows = PIXELS[:, :8, :8].transpose(0, 3, 1, 2).reshape(6, -1)
    np.savez(folder / "train_data_batch_1.npz", data=rows, labels=np.array(LABELS) + 1)


def _write_parquet(folder: Path) -> None:
    def png(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image[:8, :8]).save(buffer, "png")
        return buffer.getvalue()

    rows = [{"img": {"bytes": png(x), "path": None}, "label": y} for x, y in zip(PIXELS, LABELS, strict=True)]
    table = pyarrow.Table.from_pylist(rows)
    names = b'{"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}'
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": names}), folder / "set.parquet")


def _write_cifar(folder: Path) -> None:
    (folder / "set").mkdir()
    rows = PIXELS.transpose(0, 3, 1, 2).reshape(6, -1)
    for number, protocol in ((1, 2), (2, 4)):
        batch = {b"data": np.ascontiguousarray(rows), b"labels": LABELS}
        (folder / "set" / f"data_batch_{number}").write_bytes(pickle.dumps(batch, protocol))
    (folder / "set" / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog", b"owl"]}, 2))


def _write_tar(folder: Path) -> None:
    _write_cifar(folder)
    for name, mode in (("set.tar.gz", "w:gz"), ("set.tar", "w")):
        with tarfile.open(folder / name, mode) as archive:
            archive.add(folder / "set", "cifar-10-batches-py")
    for file in (folder / "set").iterdir():
        file.unlink()
    (folder / "set").rmdir()


def _read_tars(folder: Path) -> Found:
    one, two = _images(folder, "set.tar.gz"), _images(folder, "set.tar")
    return (one[0], two[0]), (one[1], two[1])


def _write_statistics(folder: Path) -> None:
    _read_statistics(folder)


def _read_statistics(folder: Path) -> Found:
    found = real_reference(REAL, Means())
    arrays = (found.statistics.mean, found.statistics.cov, found.halves, found.manifold.features)
    return None, [array.tobytes() for array in arrays]


def _write_bench(folder: Path) -> None:
    server = write_run(folder / "server", "server")
    write_scores(write_run(folder / "run"), server)


def _read_bench(folder: Path) -> Found:
    runs = [read_bench_run(folder / name) for name in ("server", "run")]
    read_scores(folder / "run")
    names = [sha256_of(path) for path in sorted(folder.glob("*/*.json"))]
    return names, [(run.record, run.plan, run.images().tobytes(), run.floats().tobytes()) for run in runs]


def _report(folder: Path) -> Found:
    report([folder / "server", folder / "run"], folder / "out" / "report.html")
    return [sha256_of(path) for path in sorted(folder.glob("*/*.json"))], None


def _write_record(folder: Path) -> None:
    _write_bench(folder)
    (folder / "run" / "scores.json").unlink()  # which would refuse every other record by its hash


def _read_bundle(folder: Path) -> Found:
    found = read_bundle(folder / "bundle")
    z, label, x = found.parity_vectors()
    assert label is not None
    return found.sha256, (z.tobytes(), label.tobytes(), x.tobytes(), found.artifact.read_bytes())


def _write_returned(folder: Path) -> None:
    with tarfile.open(folder / "run.tar", "w") as archive:
        for name in ("plan.json", "record.json", "samples.u8"):
            entry = tarfile.TarInfo(name)
            entry.size = 40
            archive.addfile(entry, io.BytesIO(b"x" * 40))


def _read_returned(folder: Path) -> Found:
    (folder / "unpacked").mkdir(exist_ok=True)
    allowed = dict.fromkeys(("plan.json", "record.json", "samples.u8"), 100)
    unpack((folder / "run.tar").read_bytes(), folder / "unpacked", allowed, "board")
    assert {path.name for path in folder.iterdir()} == {"run.tar", "unpacked"}
    return None, None


def _write_devices(folder: Path) -> None:
    """An answer of devicectl with a device and an error, which a real one does not have together."""
    device = {
        "hardwareProperties": {"platform": "iOS", "udid": "00008130-001A2B3C4D5E001C"},
        "connectionProperties": {"pairingState": "paired"},
    }
    below = {"code": 28, "domain": "NSPOSIXErrorDomain", "userInfo": {}}
    told = {"NSLocalizedDescription": {"string": "It failed."}, "NSUnderlyingError": {"error": below}}
    answer = {"result": {"devices": [device]}, "error": {"code": 1, "domain": "d", "userInfo": told}}
    (folder / "answer.json").write_text(json.dumps(answer))


def _read_devices(folder: Path) -> Found:
    answer = devicectl._read_answer(folder / "answer.json")
    assert devicectl._reason(answer).isprintable()
    result = answer.get("result")
    assert all(str(device).isprintable() for device in devicectl._devices(result if isinstance(result, dict) else {}))
    return None, None


def _write_run_file(folder: Path) -> None:
    run = RunFile(
        preset=tiny(), data="digits", data_sha256="a" * 64, data_count=9, started_from=None, versions={"torch": "2"}
    )
    write_model(folder / "run.json", run)


def _read_run_file(folder: Path) -> Found:
    return sha256_of(folder / "run.json"), read_training_run(folder).model_dump()


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


def _write_weights(folder: Path) -> None:
    torch.manual_seed(0)
    state = _network().state_dict()
    save_file(state, folder / "net.safetensors")
    torch.save(state, folder / "net.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)


def _read_weights(folder: Path) -> Found:
    names, found = ("net.safetensors", "net.pth", "old.pth"), []
    for name in names:
        network = _network()
        load_into(network, read_weights(folder / name), folder / name)
        assert all(torch.isfinite(value.float()).all() for value in network.state_dict().values())
        found.append({key: value.numpy().tobytes() for key, value in network.state_dict().items()})
    return [sha256_of(folder / name) for name in names], found


def _write_resnet(folder: Path) -> None:
    torch.manual_seed(0)
    torch.save({"state_dict": {f"module.{k}": v for k, v in ResNet20().state_dict().items()}}, folder / "net.th")


def _read_resnet(folder: Path) -> Found:
    path = folder / "net.th"
    network = load_resnet20(path, sha256=sha256_of(path)).network
    return sha256_of(path), [value.numpy().tobytes() for value in network.state_dict().values()]


def _write_lpips(folder: Path) -> None:
    torch.manual_seed(0)
    features = PerceptualDistance("alex", None).features.state_dict()
    save_file({f"features.{name}": value for name, value in features.items()}, folder / "alex.safetensors")
    weights = folder / "lpips" / "weights" / "v0.1" / "alex.pth"
    weights.parent.mkdir(parents=True)
    widths = enumerate((64, 192, 384, 256, 256))
    torch.save({f"lin{tap}.model.1.weight": torch.rand(1, width, 1, 1) for tap, width in widths}, weights)


def _read_lpips(folder: Path) -> Found:
    path = folder / "alex.safetensors"
    package = SimpleNamespace(submodule_search_locations=[str(folder / "lpips")])
    with patch("rdd_edge.distillation.losses.lpips.find_spec", lambda _: package):
        state = load_lpips(Lpips(network="alex", backbone=str(path)), 3).state_dict()
    names = [sha256_of(path), sha256_of(folder / "lpips/weights/v0.1/alex.pth")]
    return names, [hashlib.sha256(value.numpy().tobytes()).digest() for value in state.values()]


def _write_inception(folder: Path) -> None:
    (folder / "network.pt").write_bytes(bytes(range(256)) * 4)


def _read_inception(folder: Path) -> Found:
    sha256 = "785b0751fc2c53dc14a4ce3d800e69ef9ce1009eb327ccf458afe09c242c26c9"
    return None, find_weights(folder / "network.pt", sha256=sha256).read_bytes()


def _write_plan(folder: Path) -> None:
    write_model(folder / "plan.json", Plan())


READERS = {
    "bundle": Reader(partial(write_fake_bundle, classes=10), _read_bundle, weight=0.4),
    "plan": Reader(
        _write_plan, lambda folder: (sha256_of(folder / "plan.json"), read_model(folder / "plan.json", Plan))
    ),
    "bench run and scores": Reader(_write_bench, _read_bench),
    "report": Reader(_write_record, _report, keep=("samples.u8", "samples.f32"), weight=0.3),
    "returned tar": Reader(_write_returned, _read_returned),
    "devicectl": Reader(_write_devices, _read_devices),
    "run.json": Reader(_write_run_file, _read_run_file),
    "checkpoint with a card": Reader(_write_checkpoint, _read_checkpoint, weight=0.5),
    "packed checkpoint": Reader(_write_packed, _read_checkpoint, True, ("rdd_edge.json",), weight=0.3),
    "foreign checkpoint": Reader(_write_foreign, _read_checkpoint, weight=0.5),
    "scheduler": Reader(_write_schedule, _read_schedule),
    "extractor": Reader(_write_extractor, _read_extractor, True, ("rdd_edge.json",)),
    "torchvision": Reader(_write_torchvision, _read_torchvision, weight=0.5),
    "state": Reader(_write_state, _read_state, heals=True),
    "logs": Reader(_write_logs, _read_logs, heals=True),
    "cache": Reader(_write_cached, _images, True, ("0.png", "1.jpeg", "2.bmp"), weight=0.5, heals=True),
    "statistics": Reader(_write_statistics, _read_statistics, True, weight=0.5, heals=True),
    "folder": Reader(_write_folder, _images, weight=0.6),
    "npz": Reader(_write_npz, partial(_images, name="train_data_batch_1.npz")),
    "parquet": Reader(_write_parquet, partial(_images, name="set.parquet")),
    "cifar pickles": Reader(_write_cifar, _images),
    "cifar tar": Reader(_write_tar, _read_tars, weight=0.6),
    "weights": Reader(_write_weights, _read_weights),
    "resnet20": Reader(_write_resnet, _read_resnet, weight=0.5),
    "lpips": Reader(_write_lpips, _read_lpips, weight=0.2),
    "inception": Reader(_write_inception, _read_inception, True),
}
