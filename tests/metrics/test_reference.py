"""Extractors, cached statistics of real data, and evaluation shared among processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from rdd_edge.data import ImageSet
from rdd_edge.distributed import DistributedContext, everywhere, gather_arrays, joined, split_evenly
from rdd_edge.errors import DataError, MissingError
from rdd_edge.metrics.classifiers import save_classifier
from rdd_edge.metrics.extractors import load_extractor
from rdd_edge.metrics.frechet import Statistics, StatisticsAccumulator, frechet_distance, gather_statistics
from rdd_edge.metrics.inception_score import InceptionScoreAccumulator, gather_score
from rdd_edge.metrics.networks import Classifier, ExtractorConfig
from rdd_edge.metrics.reference import MOST, SPLITS, image_statistics, real_reference, real_spacing


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(count: int = 600) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def test_features_are_the_pooled_last_map(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ExtractorConfig(name="tiny", architecture="cnn", widths=(4, 6), image_shape=(1, 8, 8), classes=3)
    classifier = Classifier(config)
    classifier(torch.randn(32, 1, 8, 8))  # moves the running statistics: eval mode shows
    save_classifier(tmp_path / "tiny", classifier)
    extractor = load_extractor(tmp_path / "tiny")
    found = np.concatenate(list(extractor.batches(images())))
    x = torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = classifier.eval().features(x).mean((2, 3)).numpy()
    assert extractor.name == "tiny"
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert load_extractor(tmp_path / "tiny").sha256 == extractor.sha256
    save_classifier(tmp_path / "other", Classifier(config))
    assert load_extractor(tmp_path / "other").sha256 != extractor.sha256
    with pytest.raises(MissingError):
        load_extractor(tmp_path / "absent")


class Pixels:
    """An extractor whose features are the first pixels; it counts the images it was shown."""

    name = "pixels"

    def __init__(self, sha256: str = "a" * 64, device: str = "cpu") -> None:
        self.sha256, self.device, self.seen = sha256, device, 0

    def batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), 128):
            batch = images[start : start + 128]
            self.seen += len(batch)
            yield batch.reshape(len(batch), -1)[:, :5].astype(np.float32)


def data(sha256: str = "b" * 64) -> ImageSet:
    return ImageSet("pictures", images(), None, None, sha256)


def same(a: Statistics, b: Statistics) -> None:
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.cov, b.cov)
    assert a.count == b.count


def close(a: Statistics, b: Statistics) -> None:
    assert_allclose(a.mean, b.mean, rtol=1e-12)
    assert_allclose(a.cov, b.cov, rtol=1e-12)
    assert a.count == b.count


def test_the_reference_is_made_once_for_each_data_and_extractor() -> None:
    extractor = Pixels()
    first = real_reference(data(), extractor)
    again = real_reference(data(), extractor)
    same(again.statistics, first.statistics)
    np.testing.assert_array_equal(again.halves, first.halves)
    assert again.manifold.within == first.manifold.within
    close(first.statistics, image_statistics(images(), Pixels()))
    assert extractor.seen == 600
    real_reference(data("c" * 64), extractor)
    assert extractor.seen == 1200
    for other in (Pixels("d" * 64), Pixels(device="cuda")):
        real_reference(data(), other)
        assert other.seen == 600


def test_the_floor_is_what_other_real_images_have() -> None:
    """Scaled from halves of 600 images to 900 against 600: the mean and the spread over many such pairs."""
    mix = np.random.default_rng(5).standard_normal((5, 5))

    class Mixed(Pixels):
        def batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
            for batch in super().batches(images):
                yield (batch @ mix).astype(np.float32)

    def statistics(seed: int, count: int) -> Statistics:
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
        return image_statistics(pixels, Mixed())

    reference = real_reference(data(), Mixed("e" * 64))
    assert len(set(reference.halves)) == len(reference.halves) == SPLITS
    found = [frechet_distance(statistics(seed, 900), statistics(1000 + seed, 600)) for seed in range(60)]
    mean, spread = reference.floor(900)
    assert mean == pytest.approx(np.mean(found), rel=0.25)
    assert spread == pytest.approx(np.std(found), rel=0.5)
    assert mean < 0.6 * reference.halves.mean()


def test_of_a_large_data_set_a_random_choice_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdd_edge.metrics.reference.MOST", 200)
    reference = real_reference(data(), Pixels())
    assert reference.statistics.count == 600
    every = next(iter(images().reshape(600, -1)[None, :, :5].astype(np.float32)))
    where = [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in reference.manifold.features]
    assert len(set(where)) == 200
    assert min(where) < 50 and max(where) > 550
    assert real_spacing(data()) is None


def test_distances_between_the_images_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST > 600
    first = real_spacing(data())
    monkeypatch.setattr("rdd_edge.metrics.reference.Spacing.of", lambda _: pytest.fail("measured again"))
    again = real_spacing(data())
    assert first is not None and again is not None
    np.testing.assert_array_equal(again.ratios, first.ratios)
    np.testing.assert_array_equal(again.nearest, first.nearest)


@pytest.mark.parametrize("broken", [b"", b"nonsense", None])
def test_a_broken_entry_is_made_again(broken: bytes | None, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    extractor = Pixels()
    first = real_reference(data(), extractor)
    entry = min((cache / "statistics").iterdir())
    entry.write_bytes(entry.read_bytes()[:-40] if broken is None else broken)
    with caplog.at_level(logging.WARNING):
        again = real_reference(data(), extractor)
    same(again.statistics, first.statistics)
    np.testing.assert_array_equal(again.halves, first.halves)
    assert "are broken" in caplog.text
    assert extractor.seen == 1200


def test_too_few_images() -> None:
    with pytest.raises(DataError, match="5 images are too few"):
        real_reference(ImageSet("few", images(5), None, None, "f" * 64), Pixels())


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (600, 2), (2000, 3), (50_000, 7)])
def test_shares_in_whole_blocks_cover_all_samples_once_in_order(count: int, parts: int) -> None:
    shares = [DistributedContext(rank, parts).blocks(count) for rank in range(parts)]
    assert [i for part in shares for i in part] == list(range(count))
    assert all(part.start % 256 == 0 for part in shares if part)


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (2, 4), (0, 2), (50_000, 7)])
def test_shards_cover_all_samples_once_in_order(count: int, parts: int) -> None:
    shards = [split_evenly(count, rank, parts) for rank in range(parts)]
    assert [i for part in shards for i in part] == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def certain(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).dirichlet(np.full(6, 0.3), size=count).astype(np.float32)


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=3)
    os.environ["WORLD_SIZE"] = "3"
    with joined("cpu"):
        gather(rank, folder)
    dist.destroy_process_group()


def gather(rank: int, folder: str) -> None:
    own = StatisticsAccumulator()
    if rank < 2:  # the third has nothing
        rows = split_evenly(600, rank, 2)
        own.add_all(Pixels().batches(images()[rows.start : rows.stop]))
    np.save(f"{folder}/{rank}.npy", gather_statistics(own).state())
    score = InceptionScoreAccumulator(600, 4)
    if rank < 2:
        score.add(rows.start, certain(600)[rows.start : rows.stop])
    found = gather_score(score).result()
    parts = gather_arrays(np.full((rank, 2), rank, np.uint8))
    assert [part.tolist() for part in parts] == [[], [[1, 1]], [[2, 2], [2, 2]]]
    assert [everywhere(flag) for flag in (True, rank != 1)] == [True, False]
    np.save(f"{folder}/score-{rank}.npy", [found.mean, found.spread])


def test_processes_together_see_what_one_would(tmp_path: Path) -> None:
    processes.spawn(worker, (str(tmp_path),), nprocs=3)
    expected = image_statistics(images(), Pixels())
    states = [np.load(tmp_path / f"{rank}.npy") for rank in range(3)]
    for state in states:
        np.testing.assert_array_equal(state, states[0])
        gathered = StatisticsAccumulator()
        gathered.add_state(state)
        found = gathered.result()
        assert_allclose(found.cov, expected.cov, rtol=1e-12)
        assert_allclose(found.mean, expected.mean, rtol=1e-12)
    whole = InceptionScoreAccumulator(600, 4)
    whole.add(0, certain(600))
    score = whole.result()
    for rank in range(3):
        assert_allclose(np.load(tmp_path / f"score-{rank}.npy"), [score.mean, score.spread], rtol=1e-12)


def test_alone_nothing_is_gathered() -> None:
    own, score = StatisticsAccumulator(), InceptionScoreAccumulator(20)
    assert gather_statistics(own) is own
    assert gather_score(score) is score
