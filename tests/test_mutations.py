"""Records, plans, manifests, scores and samples that were damaged or made up: each ends in a sentence.

Every leaf of every document is replaced by what it must not be. Nothing is written but the page that was asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import write_fake_bundle
from records import write_run, write_scores

from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import read_bundle
from rdd_edge.errors import RddEdgeError
from rdd_edge.files import sha256_of
from rdd_edge.reporting.report import report

MARKUP = "<script>alert(1)</script>"
Key = tuple[str | int, ...]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a server's run, an artifact's run with scores, and a bundle, all sound."""
    folder = tmp_path_factory.mktemp("good")
    server = write_run(folder / "server", "server")
    write_scores(write_run(folder / "run"), server)
    write_fake_bundle(folder, name="bundle", classes=10)
    return folder


def use(folder: Path) -> None:
    """Everything that reads these files."""
    read_bundle(folder / "bundle").parity_vectors()
    read_bench_run(folder / "run")
    report([folder / "server", folder / "run"], folder / "out" / "report.html")
    report([folder / "server", folder / "run"], folder / "out" / "report.md")


DOCUMENTS = ("run/record.json", "run/plan.json", "run/scores.json", "bundle/manifest.json")


def leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*key, name))
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*key, 0))
    else:
        yield key, value


def replaced(document: Any, key: Key, value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    place = copy
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    return copy


class Literal(float):
    """A number that json writes as itself, whatever Python thinks of it."""

    def __repr__(self) -> str:
        return self.text

    def __new__(cls, text: str) -> Literal:
        self = super().__new__(cls, 1.5)
        self.text = text
        return self


def dump(document: Any) -> str:
    """JSON with Literals written out."""
    found: list[str] = []

    def mark(value: Any) -> Any:
        if isinstance(value, Literal):
            found.append(value.text)
            return f"\x00{len(found) - 1}"
        if isinstance(value, dict):
            return {name: mark(part) for name, part in value.items()}
        return [mark(part) for part in value] if isinstance(value, list) else value

    text = json.dumps(mark(document))
    for i, literal in enumerate(found):
        text = text.replace(f'"\\u0000{i}"', literal)
    return text


def mutations(document: Any) -> Iterator[tuple[str, str]]:
    """(what was done, the document as text) of a document that is refused each time."""
    for key, value in leaves(document):
        where = ".".join(map(str, key))
        yield f"{where} an object", dump(replaced(document, key, {"x": 1}))
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, (int, float)):
            for text in ("NaN", "-Infinity", "1e400", '"1"', "true", "-1e30"):
                yield f"{where} {text}", dump(replaced(document, key, Literal(text)))
        if isinstance(value, int):
            yield f"{where} huge", dump(replaced(document, key, 10**40))
        if isinstance(value, str):
            for text in ("\x1b[2Jgone", "two\nlines", "x" * 5000):
                yield f"{where} {text[:9]!r}", dump(replaced(document, key, text))
            yield f"{where} a number", dump(replaced(document, key, 7))
    yield "an unknown key", dump({**document, MARKUP + "\x1b[2J": 1})
    yield "another version", dump({**document, "schema_version": 99})
    text = json.dumps(document)
    for share in (0.0, 0.3, 0.9, 0.999):
        yield f"cut at {share}", text[: int(share * len(text))]
    yield "a list", "[]"
    yield "deep", "[" * 100_000
    yield "bytes", "\udcff" + text


def refused(folder: Path, what: str) -> str:
    before = set(folder.rglob("*"))
    try:
        use(folder)
    except RddEdgeError as error:
        sentence = str(error)
        assert "\n" not in sentence, what
        assert sentence.isprintable(), (what, sentence)
        assert len(sentence) < 1000, what
        assert set(folder.rglob("*")) == before, what
        return sentence
    raise AssertionError(f"{what} was accepted")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_damaged_leaf_is_refused(tmp_path: Path, good: Path, name: str) -> None:
    folder = tmp_path / "all"
    shutil.copytree(good, folder)
    if name == "run/record.json":
        (folder / "run/scores.json").unlink()  # which would refuse any other record by its hash
    document = json.loads((folder / name).read_text())
    count = 0
    for what, text in mutations(document):
        (folder / name).write_bytes(text.encode(errors="surrogateescape"))
        refused(folder, f"{name}: {what}")
        count += 1
    assert count >= 50
    (folder / name).write_text(json.dumps(document))
    use(folder)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("run/record.json", ("target",), MARKUP),
        ("run/record.json", ("precision",), "../../x"),
        ("run/record.json", ("started_at",), MARKUP),
        ("run/record.json", ("where",), "moon"),
        ("run/record.json", ("load_ms",), None),
        ("run/record.json", ("samples", "count"), 0),
        ("run/record.json", ("samples", "count"), 9_999_999),
        ("run/record.json", ("samples", "height"), 16),
        ("run/record.json", ("samples", "f32_sha256"), None),
        ("run/record.json", ("samples", "u8_sha256"), "0" * 64),
        ("run/plan.json", ("accuracy", "seed"), 1),
        ("run/plan.json", ("accuracy", "samples"), 21),
        ("run/plan.json", ("performance", "runs"), 0),
        ("run/plan.json", ("performance", "seconds"), 1e9),
        ("run/scores.json", ("target",), MARKUP),
        ("run/scores.json", ("record_sha256",), "0" * 64),
        ("bundle/manifest.json", ("artifact",), "../../etc/passwd"),
        ("bundle/manifest.json", ("artifact",), "/etc/passwd"),
        ("bundle/manifest.json", ("artifact",), "parity"),
        ("bundle/manifest.json", ("artifact",), "manifest.json"),
        ("bundle/manifest.json", ("artifact",), "."),
        ("bundle/manifest.json", ("files",), {}),
        ("bundle/manifest.json", ("files",), {"../run/record.json": "0" * 64, "model.fake": "0" * 64}),
        ("bundle/manifest.json", ("files",), {"/etc/passwd": "0" * 64, "model.fake": "0" * 64}),
        ("bundle/manifest.json", ("input", "shape"), [1, 1, 8]),
        ("bundle/manifest.json", ("input", "shape"), [1, 1, 4, 8]),
        ("bundle/manifest.json", ("input", "shape"), []),
        ("bundle/manifest.json", ("label", "high"), 9.5),
        ("bundle/manifest.json", ("label", "shape"), [2]),
        ("bundle/manifest.json", ("parity", "samples"), 3),
        ("bundle/manifest.json", ("parity", "reason"), None),
        ("bundle/manifest.json", ("t",), 0.5),
    ],
)
def test_what_is_well_formed_and_untrue_is_refused(tmp_path: Path, good: Path, name: str, key: Key, value: Any) -> None:
    folder = tmp_path / "all"
    shutil.copytree(good, folder)
    if name == "run/record.json":
        (folder / "run/scores.json").unlink()  # which would refuse any other record by its hash
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(replaced(document, key, value)))
    refused(folder, f"{name}: {key} {value}")


def _symlink(path: Path) -> None:
    aside = path.parent.parent / f"aside-{path.name}"
    path.rename(aside)
    path.symlink_to(aside)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


FILES = (
    "run/record.json", "run/plan.json", "run/samples.u8", "run/samples.f32", "bundle/manifest.json",
    "bundle/model.fake", "bundle/parity/z.f32", "bundle/parity/x.f32", "bundle/parity/label.i64",
)  # fmt: skip


@pytest.mark.parametrize("harm", [_symlink, _folder, _cut, _grow, _flip, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_every_damaged_file_is_refused(tmp_path: Path, good: Path, name: str, harm: Callable[[Path], None]) -> None:
    folder = tmp_path / "all"
    shutil.copytree(good, folder)
    if name == "run/record.json":
        (folder / "run/scores.json").unlink()
    harm(folder / name)
    refused(folder, f"{name}: {harm.__name__}")


def test_floats_that_are_not_numbers_are_refused(tmp_path: Path, good: Path) -> None:
    """Even with the hash made to fit."""
    folder = tmp_path / "all"
    shutil.copytree(good, folder)
    path = folder / "run" / "samples.f32"
    path.write_bytes(b"\xff" * path.stat().st_size)
    (folder / "run/scores.json").unlink()
    record = json.loads((folder / "run/record.json").read_text())
    record["samples"]["f32_sha256"] = sha256_of(path)
    (folder / "run/record.json").write_text(json.dumps(record))
    assert "not finite" in refused(folder, "NaN in samples.f32")


def test_the_sound_files_are_accepted(tmp_path: Path, good: Path) -> None:
    shutil.copytree(good, tmp_path / "all")
    use(tmp_path / "all")
    assert "mirrored" in (tmp_path / "all/out/report.html").read_text()
