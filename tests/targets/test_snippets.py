"""The code in bundles' README.md. Python's is run by the tests of the exports, Kotlin's by `make test-android`."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tree_sitter
import tree_sitter_swift
from bundles import write_fake_bundle

from rdd_edge.bundle import Manifest, read_bundle
from rdd_edge.targets.ios.usage import snippets as ios_snippets
from rdd_edge.targets.jetson.usage import snippets as jetson_snippets

HEADERS = Path(__file__).parents[1] / "fakes/jetson/include"
SHAPE = (2, 3, 8, 8)
MAIN = """
#include <cstdio>
#include <iostream>

int main(int, char** arguments) {
    {
        Generator generator(arguments[1]);
        std::vector<float> z(384);
        std::cin.read(reinterpret_cast<char*>(z.data()), 4 * z.size());
        for (int i = 0; i < 2; ++i) {
            auto x = generator.run(LABEL z);
            std::fwrite(x.data(), 4, x.size(), stdout);
        }
    }
    return cudaOpen;
}
"""


def manifest(folder: Path, target: str, classes: int | None) -> Manifest:
    return read_bundle(write_fake_bundle(folder, target=target, classes=classes, channels=3, batch=2)).manifest


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("classes", [None, 10])
def test_the_cpp_of_a_jetson_bundle_draws_images(classes: int | None, tmp_path: Path) -> None:
    source, program, engine = tmp_path / "main.cpp", tmp_path / "main", tmp_path / "model.engine"
    main = MAIN.replace("LABEL", "{3, 7}," if classes else "")
    source.write_text(jetson_snippets(manifest(tmp_path, "jetson", classes))["C++"] + main)
    build = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-isystem", HEADERS]
    built = subprocess.run([*build, source, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    run = partial(subprocess.run, [program, engine], capture_output=True)
    z = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    engine.write_bytes(np.array([z.size, 2, bool(classes)], "<i4").tobytes())
    done = run(input=z.tobytes())
    assert done.returncode == 0, done.stderr  # 0: nothing is left allocated
    expected = z / 2 + (np.array([3, 7], np.float32).reshape(2, 1, 1, 1) if classes else 0)
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "<f4").reshape(2, *SHAPE), [expected, expected])
    engine.write_bytes(b"of another board")
    assert b"the engine does not load: build it again on this board" in run(input=z.tobytes()).stderr


@pytest.mark.parametrize("classes", [None, 10])
def test_the_swift_of_an_ios_bundle_is_swift(classes: int | None, tmp_path: Path) -> None:
    code = ios_snippets(manifest(tmp_path, "ios", classes))["Swift"]
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    assert not parser.parse(code.encode()).root_node.has_error
    assert parser.parse(re.sub(r"\}$", "", code).encode()).root_node.has_error
