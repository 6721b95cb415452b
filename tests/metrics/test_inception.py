"""The Inception weights are the pinned ones or none, and the score is that of its authors' formula."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import Tensor, nn

from rdd_edge.errors import CorruptError, DataError, MissingError, UsageError
from rdd_edge.metrics import inception as module
from rdd_edge.metrics.inception import FILE, SHA256, URL, Inception, find_weights, metric_name
from rdd_edge.metrics.inception_score import InceptionScoreAccumulator

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RDD_EDGE_INCEPTION", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path) -> str:
    (tmp_path / "served").write_bytes(CONTENT)
    return (tmp_path / "served").as_uri()


def test_downloaded_once_and_checked(cache: Path, server: str, tmp_path: Path) -> None:
    place = find_weights(url=server, sha256=DIGEST)
    assert place == cache / FILE
    assert place.read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == [FILE]
    (tmp_path / "served").unlink()
    assert find_weights(url=server, sha256=DIGEST) == place


def test_a_download_of_another_hash_is_not_kept(cache: Path, server: str) -> None:
    with pytest.raises(CorruptError, match=f"its SHA-256 is {DIGEST}"):
        find_weights(url=server)
    assert list(cache.iterdir()) == []


def test_absent_and_offline_says_where_to_put_it(cache: Path, tmp_path: Path) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()
    with pytest.raises(MissingError) as caught:
        find_weights(url=nowhere)
    for part in (nowhere, str(cache / FILE), "RDD_EDGE_INCEPTION"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_named_file_comes_before_the_variable_and_the_cache(
    cache: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("named", "variable"):
        (tmp_path / name).write_bytes(CONTENT)
    monkeypatch.setenv("RDD_EDGE_INCEPTION", str(tmp_path / "variable"))
    assert find_weights(url=server, sha256=DIGEST) == tmp_path / "variable"
    assert find_weights(tmp_path / "named", url=server, sha256=DIGEST) == tmp_path / "named"
    with pytest.raises(MissingError, match=r"there is no .*absent"):
        find_weights(tmp_path / "absent", url=server, sha256=DIGEST)
    assert not cache.exists()


def test_a_file_of_another_hash_is_refused_before_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.script(FakeInception()).save(str(tmp_path / "other.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(CorruptError, match=r"other\.pt is not the original Inception network"):
        module.load_inception(tmp_path / "other.pt")


def test_fid_is_the_name_of_the_original_weights_alone() -> None:
    script = torch.jit.script(FakeInception())
    assert metric_name(Inception(script, SHA256)) == "fid"
    assert metric_name(Inception(script, DIGEST)) == "fd_inception"


def test_the_pinned_file() -> None:
    assert SHA256 == "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
    assert URL == "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"


class FakeInception(nn.Module):
    """The interface of NVIDIA's script: uint8 N, C, H, W in; features, or probabilities without the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 5)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        features = img.to(torch.float32).mean(dim=[2, 3]) / 255.0
        if return_features:
            return features
        logits = features @ self.output.weight.t() if no_output_bias else self.output(features)
        return torch.softmax(logits, dim=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_and_probabilities_are_those_of_the_script(channels: int) -> None:
    torch.manual_seed(0)
    script = torch.jit.script(FakeInception())
    images = np.random.default_rng(0).integers(0, 256, (150, 4, 4, channels), dtype=np.uint8)
    network = Inception(script, "0" * 64)
    features = np.concatenate(list(network.batches(images)))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    assert_allclose(features, script(x, return_features=True).numpy(), rtol=1e-6)
    expected = script(x, no_output_bias=True).detach().numpy()
    assert_allclose(network.probabilities(features), expected, rtol=1e-5)


def test_features_are_computed_without_tf32() -> None:
    class Script(nn.Module):
        def forward(self, x: Tensor, return_features: bool) -> Tensor:
            allowed.append(torch.backends.cudnn.allow_tf32)
            return x[:, :, 0, 0].float()

    allowed: list[bool] = []
    before = torch.backends.cudnn.allow_tf32
    list(Inception(Script(), "0" * 64).batches(np.zeros((2, 4, 4, 3), np.uint8)))
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def probabilities(count: int, classes: int = 7) -> NDArray[np.float32]:
    return np.random.default_rng(0).dirichlet(np.full(classes, 0.3), size=count).astype(np.float32)


def authors_formula(p: NDArray[np.float64], splits: int) -> tuple[float, float]:
    """exp(E KL(p(y|x) ‖ p(y))) over each split, written from the paper."""
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        divergence = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_score_is_the_formula_in_any_batches_and_any_merge(splits: int) -> None:
    p = probabilities(103)
    parts = [InceptionScoreAccumulator(103, splits) for _ in range(2)]
    for place, start in enumerate(range(0, 103, 20)):
        parts[place % 2].add(start, p[start : start + 20])
    parts[1].add_state(parts[0].state())
    score = parts[1].result()
    assert_allclose((score.mean, score.spread), authors_formula(p.astype(np.float64), splits), rtol=1e-9)
    assert score.splits == splits


def test_score_of_certain_and_even_classes_is_their_number() -> None:
    accumulator = InceptionScoreAccumulator(40, 4)
    accumulator.add(0, np.tile(np.eye(5, dtype=np.float32), (8, 1)))
    score = accumulator.result()
    assert_allclose((score.mean, score.spread), (5.0, 0.0), atol=1e-12)


def test_score_refusals() -> None:
    with pytest.raises(DataError, match="5 samples do not give"):
        InceptionScoreAccumulator(5)
    accumulator = InceptionScoreAccumulator(20)
    accumulator.add(0, probabilities(10))
    with pytest.raises(DataError, match="10 of 20 samples"):
        accumulator.result()
    with pytest.raises(UsageError, match="are not among the 20"):
        accumulator.add(15, probabilities(10))
