"""Fixtures shared by the whole suite: small networks with random weights, made once a session and never written to."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from bundles import add_fake_target, write_fake_bundle
from networks import small_unet

# A minute or two each, the longest first.
LONGEST = (
    "test_quickstart.py", "test_android.py", "test_ios.py", "test_pipeline.py", "test_scores.py", "test_distributed.py",
    "test_android_operators.py", "test_verify.py", "test_ssh.py", "test_run.py", "test_pretrained.py",
)  # fmt: skip


def pytest_configure() -> None:
    """Programs that the tests interrupt take the signal, even where the suite was started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: (*LONGEST, item.path.name).index(item.path.name))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-step student's folder: 8 × 8 × 1, channels (32, 64), unconditional, random weights. Read only."""
    from rdd_edge.diffusion.saving import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(folder, small_unet(), role="student", method="random", sampling_steps=1)
    return folder


@pytest.fixture(scope="session")
def tiny_conditional_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 10 classes, "zero" … "nine"."""
    from rdd_edge.diffusion.saving import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "conditional"
    model = small_unet(seed=1, num_class_embeds=10)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    save_checkpoint(folder, model, role="student", method="random", sampling_steps=1, class_names=names)
    return folder


@pytest.fixture
def every_even_map_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rewrite `winograd` takes small networks' convolutions as well."""
    module = importlib.import_module("rdd_edge.exporting.rewrites.winograd")  # the package has a function of that name
    monkeypatch.setattr(module, "LEAST_PIXELS", 1)
    monkeypatch.setattr(module, "LEAST_MACS", 0)


@pytest.fixture
def fake_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target `fake` of tests/fakes is found, here and in child processes."""
    add_fake_target(monkeypatch)


@pytest.fixture
def make_bundle(tmp_path: Path, fake_target: None) -> Callable[..., Path]:
    """make_bundle(word): a bundle of the target `fake` whose artifact does what the word says."""
    return partial(write_fake_bundle, tmp_path)
