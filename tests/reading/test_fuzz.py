"""Mutated files for every reader: our exceptions alone, bounded time and memory, and no result that is silently wrong.

A result may change only together with what names it in records, such as the SHA-256 of a data set.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated
from readers import READERS

from rdd_edge.errors import RddEdgeError

SECONDS, BYTES = 5.0, 1 << 30
INPUTS, SLOW_INPUTS = 2_000, 200_000
ESCAPED = Path("/tmp/rdd-edge-escaped")
SHARE = sum(reader.weight for reader in READERS.values())

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=5,
)


class Fuzzed:
    """A reader's sound files in memory, its result, and a folder where they are mutated and read."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.reader, self.outer = name, READERS[name], folder
        self.box = folder / "box"
        self.box.mkdir()
        monkeypatch.setenv("RDD_EDGE_CACHE", str(self.box / "cache"))
        monkeypatch.setattr(os, "fsync", lambda _: None)  # would take most of the time
        self.reader.make(self.box)
        self.files = {path: path.read_bytes() for path in sorted(self.box.rglob("*")) if path.is_file()}
        self.names = [
            path for path in self.files if path.name not in self.reader.keep and not path.name.endswith(".lock")
        ]
        self.identity, self.result = self.reader.read(self.box)
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.counts: Counter[str] = Counter()

    def check(self, draws: random.Random, value: Any) -> None:
        """Read the files with one of them mutated."""
        self._restore()
        path = draws.choice(self.names)
        changed = mutated(self.files[path], draws, value)
        path.write_bytes(changed)
        start = time.process_time()
        try:
            identity, result = self.reader.read(self.box)
        except RddEdgeError as error:
            sentence = str(error)
            assert sentence and sentence.isprintable() and len(sentence) <= 2000, (path, sentence)
            self.counts["refused"] += 1
        else:
            self.counts["accepted"] += 1
            same = identity == self.identity
            assert same or not self.reader.proven, f"{path}: a change of a proven file was accepted"
            assert not same or result == self.result, f"{path}: another result under the same identity"
        assert time.process_time() - start < SECONDS, path
        assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.peak) < BYTES, path
        assert [entry.name for entry in self.outer.iterdir()] == ["box"]
        assert not ESCAPED.exists()

    def _restore(self) -> None:
        for path in sorted(self.box.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in self.files:
                path.unlink()
        for path, content in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzed = Fuzzed(name, tmp_path, monkeypatch)

    @settings(max_examples=round(INPUTS * fuzzed.reader.weight / SHARE) + 1, derandomize=True, database=None,
              deadline=None, suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.integers(0, 2**32), values)
    def check(seed: int, value: Any) -> None:
        fuzzed.check(random.Random(seed), value)

    check()
    assert (fuzzed.counts["refused"] == 0) == fuzzed.reader.heals


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_mutated_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzed = Fuzzed(name, tmp_path, monkeypatch)
    for seed in range(round(SLOW_INPUTS * fuzzed.reader.weight / SHARE) + 1):
        draws = random.Random(f"{name} {seed}")
        try:
            fuzzed.check(draws, draws.choice(("", -1, 1.5, [[]], {"": None})))
        except Exception as error:
            raise AssertionError(f"input {seed}") from error


def test_the_fuzzer_sees_a_wrong_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: a reader that takes whatever it finds."""
    wrong = READERS["inception"].__class__(
        READERS["inception"].make, lambda folder: (None, (folder / "network.pt").read_bytes())
    )
    monkeypatch.setitem(READERS, "wrong", wrong)
    fuzzed = Fuzzed("wrong", tmp_path, monkeypatch)
    with pytest.raises(AssertionError, match="another result under the same identity"):
        fuzzed.check(random.Random(1), None)
    shutil.rmtree(fuzzed.box)
