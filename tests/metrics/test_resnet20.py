"""The independent extractor: He's ResNet-20 from a file of akamaster's layout, and from no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor

from rdd_edge.errors import CorruptError, MissingError
from rdd_edge.files import sha256_of
from rdd_edge.metrics.resnet20 import SHA256, load_resnet20

State = dict[str, Tensor]


def random_state() -> State:
    """Tensors under the names that the published file has."""
    torch.manual_seed(0)
    state: State = {"module.conv1.weight": torch.randn(16, 3, 3, 3) * 0.3, **_norm("module.bn1", 16)}
    for layer, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
        for block in range(3):
            for turn, channels in ((1, before if block == 0 else width), (2, width)):
                name = f"module.layer{layer}.{block}"
                state[f"{name}.conv{turn}.weight"] = torch.randn(width, channels, 3, 3) / (3 * channels**0.5)
                state |= _norm(f"{name}.bn{turn}", width)
    return {**state, "module.linear.weight": torch.randn(10, 64), "module.linear.bias": torch.randn(10)}


def _norm(name: str, width: int) -> State:
    values = {"weight": torch.rand(width) + 0.5, "bias": torch.randn(width) * 0.1}
    running = {"running_mean": torch.randn(width) * 0.1, "running_var": torch.rand(width) + 0.5}
    return {f"{name}.{key}": value for key, value in {**values, **running}.items()}


def reference(state: State, images: np.ndarray) -> Tensor:
    """Pooled features, written down again from the paper: option A pads the new channels with zeros on both sides."""

    def norm(x: Tensor, name: str) -> Tensor:
        s = {key: state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(x, s["running_mean"], s["running_var"], s["weight"], s["bias"])

    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(images).float() / 255 - mean) / deviation).permute(0, 3, 1, 2)
    x = F.relu(norm(F.conv2d(x, state["module.conv1.weight"], padding=1), "module.bn1"))
    for layer in (1, 2, 3):
        for block in range(3):
            name, stride = f"module.layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            inner = norm(F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                x = x[:, :, ::2, ::2]
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2])
                x = torch.cat([zeros, x, zeros], dim=1)
            x = F.relu(inner + x)
    return x.mean((2, 3))


def test_features_are_those_of_the_network_written_down_again(tmp_path: Path) -> None:
    content = {"state_dict": random_state(), "best_prec1": 91.7}
    torch.save(content, tmp_path / "net.th", _use_new_zipfile_serialization=False)  # the published file is that old
    extractor = load_resnet20(tmp_path / "net.th", sha256=sha256_of(tmp_path / "net.th"))
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = np.concatenate(list(extractor.batches(images)))
    assert found.shape == (5, 64)
    assert extractor.name == "resnet20"
    assert_allclose(found, reference(random_state(), images).numpy(), rtol=1e-4, atol=1e-5)


def test_only_the_published_file_and_only_a_resnet20(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="fd_resnet20 needs resnet20-12fca82f"):
        load_resnet20(tmp_path / "absent.th")
    path = tmp_path / "net.th"
    torch.save({"state_dict": random_state()}, path)
    assert sha256_of(path) != SHA256
    with pytest.raises(CorruptError, match="its SHA-256 differs"):
        load_resnet20(path)
    state = random_state()
    del state["module.layer2.1.conv1.weight"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(CorruptError, match=r"lacks the tensor layer2\.1\.conv1\.weight"):
        load_resnet20(path, sha256=sha256_of(path))
    path.write_bytes(b"not a file of torch")
    with pytest.raises(CorruptError, match="is not a file of weights"):
        load_resnet20(path, sha256=sha256_of(path))
