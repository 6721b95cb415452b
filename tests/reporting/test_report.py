"""The report of real benchmark runs: its values, its safety, and its behavior in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bundles import add_fake_target, write_fake_bundle
from records import REAL, Means, write_run, write_scores

from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.record import Device, OperatorTime, RunRecord, summary
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.errors import CorruptError, MissingError, UsageError
from rdd_edge.evaluation.scores import Scores, score
from rdd_edge.files import write_model
from rdd_edge.reading.documents import read_model
from rdd_edge.reporting.details import by_kind
from rdd_edge.reporting.report import report
from rdd_edge.reporting.table import HOST_NOTE
from rdd_edge.targets.base import Runtime

PLAN = Plan(
    performance=PerformancePlan(warmup=0, runs=20, seconds=0, starts=1),
    accuracy=AccuracyPlan(samples=20, seed=5, floats=12),
    threads=1,
)
NAMES = ("server", "fine", "nowhere")
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"`|*_]("


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The server, an artifact with scores, and one that cannot run here. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        add_fake_target(patch)
        sha = read_checkpoint(tiny_checkpoint).sha256
        bench(tiny_checkpoint, "server", folder / "server", PLAN)
        bench(write_fake_bundle(folder, "fine", name="a", checkpoint_sha256=sha), "host", folder / "fine", PLAN)
        bench(write_fake_bundle(folder, "nowhere", name="b", checkpoint_sha256=sha), "host", folder / "nowhere", PLAN)
        for name in NAMES:
            score(folder / name, folder / "server", REAL, Means(), folder / name / "scores.json")
    return folder


@pytest.fixture
def runs(tmp_path: Path, made: Path) -> list[Path]:
    for name in NAMES:
        shutil.copytree(made / name, tmp_path / name)
    return [tmp_path / name for name in NAMES]


def spoil(run: Path, text: str) -> None:
    """Put a text into every string of a record and its scores that has no pattern."""
    record = read_model(run / "record.json", RunRecord)
    changes = {
        "checkpoint": text,
        "device": Device(name=text, system=text, machine=text, processor=text, cores=1, memory_bytes=1),
        "runtime": Runtime(name=text, version=text, backend=text) if record.runtime else None,
        "power_mode": text,
        "operators": (OperatorTime(name=text, kind=text, milliseconds=1.0, backend=text),),
        "missing": dict.fromkeys(record.missing, text) | {text: text},
    }
    write_model(run / "record.json", record.model_copy(update=changes))
    if (run / "scores.json").is_file():
        from rdd_edge.files import sha256_of

        scores = read_model(run / "scores.json", Scores)
        changes = {
            "missing": dict.fromkeys(scores.missing, text),
            "record_sha256": sha256_of(run / "record.json"),
            "diagnoses": tuple(one.model_copy(update={"name": text, "sentence": text}) for one in scores.diagnoses),
        }
        if scores.distance:
            changes["distance"] = scores.distance.model_copy(update={"metric": text, "caution": text})
        write_model(run / "scores.json", scores.model_copy(update=changes))


class Tags(HTMLParser):
    """Every element and every attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_holds_what_was_measured(tmp_path: Path, runs: list[Path]) -> None:
    report(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    stats = summary(read_model(runs[1] / "record.json", RunRecord))
    scores = read_model(runs[1] / "scores.json", Scores)
    assert stats is not None
    assert scores.distance is not None
    assert f'data-sort="{stats.median}"' in page
    assert f'data-sort="{scores.distance.artifact}"' in page
    assert "fd_quarters" in page
    assert "Fakert runs on fake machines only." in page  # the reason of every dash of the third run
    assert "other noise" in page  # the planted mistake: the fake artifact is not the student
    assert page.count("data:image/png;base64,") == 1 + 3 + 1  # server; server, artifact, difference; the worst
    assert re.search(r"Difference × \d+", page)


def test_fidelity_diversity_and_copying_stand_in_a_table_of_their_own(tmp_path: Path, runs: list[Path]) -> None:
    """The student once, each artifact that was scored, and what real images would have; not the run without samples."""
    neighbors = read_model(runs[1] / "scores.json", Scores).neighbors
    assert neighbors is not None and neighbors.artifact.copies is not None
    report(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    table = page.split('<table class="neighbors">')[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">([^<]*)</th>', table) == ["student", "fake fp32 (host)", "real images"]
    recall = neighbors.artifact.recall
    assert f"{recall.value:.3f}<small>{recall.low:.3f} … {recall.high:.3f}</small>" in table
    report(runs, tmp_path / "report.md")
    lines = (tmp_path / "report.md").read_text().splitlines()
    head = lines.index("| | Precision | Recall | Density | Coverage | Near copies |")
    assert lines[head + 2] == f"| student | {' | '.join(neighbors.server.texts())} |"
    assert lines[head + 4] == f"| real images | {' | '.join(neighbors.real.texts())} |"
    report(runs[2:], tmp_path / "none.html")
    assert "Fidelity, diversity" not in (tmp_path / "none.html").read_text()


def test_every_figure_says_where_it_was_measured(tmp_path: Path, runs: list[Path]) -> None:
    """Of one bundle on the host and on a device: table, overview, chart and Markdown tell them apart."""
    board = write_run(tmp_path / "board", "jetson", median_ms=3.0)
    record = read_model(board / "record.json", RunRecord)
    device = record.device.model_copy(update={"name": "Orin Nano"})
    write_model(board / "record.json", record.model_copy(update={"where": "device", "device": device}))
    write_scores(board, runs[0])
    report([*runs[:2], board], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "fake fp32 (host)</div>" in page.replace("fine", "fake")  # the overview
    assert "jetson fp32 (Orin Nano)</div>" in page
    assert "<small>on Orin Nano</small>" in page
    assert "jetson fp32 (Orin Nano)</text>" in page  # the chart
    assert HOST_NOTE in unescape(page)
    report([*runs[:2], board], tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "| jetson | fp32 | Orin Nano |" in text
    assert HOST_NOTE in text
    report([runs[0], board], tmp_path / "device.html")
    assert HOST_NOTE not in unescape((tmp_path / "device.html").read_text())  # the server is no target's stand-in


def test_the_page_says_where_the_time_goes(tmp_path: Path, runs: list[Path]) -> None:
    report(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    operators = read_model(runs[0] / "record.json", RunRecord).operators
    assert operators is not None
    slowest = by_kind(operators)[0]
    assert f'<th scope="row">{slowest.kind}</th>' in page
    assert f"<span>{100 * slowest.fraction:.1f} %</span>" in page
    assert page.count("Where the time goes") == 1  # the fake's runtime has no profiler
    assert "rdd-edge does not profile operators in fakert" in page


def test_the_page_needs_no_network(tmp_path: Path, runs: list[Path]) -> None:
    report(runs, tmp_path / "report.html")
    page = Tags((tmp_path / "report.html").read_text())
    for name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster"):
            assert value is not None
            assert value.startswith(("data:", "#"))
    assert "url(" not in (tmp_path / "report.html").read_text()
    assert "@import" not in (tmp_path / "report.html").read_text()


def test_strings_of_a_record_are_text_and_nothing_else(tmp_path: Path, runs: list[Path]) -> None:
    report(runs, tmp_path / "good.html")
    good = Tags((tmp_path / "good.html").read_text())
    for run in runs:
        spoil(run, EVIL)
    report(runs, tmp_path / "evil.html", baseline=runs[1])
    evil = Tags((tmp_path / "evil.html").read_text())
    assert set(evil.tags) <= set(good.tags) | {"strong"}
    assert evil.tags.count("script") == 1
    assert not [name for name, _ in evil.attributes if name.startswith("on")]
    report(runs, tmp_path / "evil.md")
    markdown = (tmp_path / "evil.md").read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown


def test_markdown_is_a_table_with_notes(tmp_path: Path, runs: list[Path]) -> None:
    report(runs, tmp_path / "report.md", baseline=runs[0])
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0].startswith("| Target | Precision | Ran on | Runtime | Size |")
    assert all(line.count("|") == lines[0].count("|") for line in lines[:5])
    assert "| 1.00× |" in lines[2] + lines[3] + lines[4]
    assert "1. Fakert runs on fake machines only." in lines


def test_json_is_for_scripts(tmp_path: Path, runs: list[Path]) -> None:
    report(runs, tmp_path / "report.json", baseline=runs[0])
    rows = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert sorted(row["record"]["target"] for row in rows) == ["fake", "fake", "server"]
    server = next(row for row in rows if row["record"]["target"] == "server")
    assert server["relative_to_baseline"] == 1.0
    assert server["scores"]["distance"]["rise"] == 0.0
    assert sum(kind["fraction"] for kind in server["operators_by_kind"]) == pytest.approx(1.0)


def test_what_cannot_be_reported_is_a_sentence(tmp_path: Path, runs: list[Path]) -> None:
    out = tmp_path / "report.html"
    with pytest.raises(UsageError, match="at least one benchmark run"):
        report([], out)
    with pytest.raises(MissingError, match="is not a benchmark run"):
        report([tmp_path], out)
    with pytest.raises(UsageError, match=r"has none of the suffixes \.html"):
        report(runs, tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="is a folder"):
        report(runs, tmp_path)
    with pytest.raises(UsageError, match="has no latencies: fakert runs"):
        report(runs, out, baseline=runs[2])
    with pytest.raises(UsageError, match="belongs to none of the benchmark runs"):
        report(runs[:1], out, scores=[runs[1] / "scores.json"])
    shutil.copy(runs[1] / "scores.json", runs[0] / "scores.json")
    with pytest.raises(CorruptError, match="belongs to another record"):
        report(runs, out)
    assert not out.exists()


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def chromium(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    with (folder / "dom").open("w") as out:  # a file: its helper processes would keep a pipe open
        subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, check=True, timeout=120)
    return (folder / "dom").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_browser_runs_no_string_of_a_record(tmp_path: Path, runs: list[Path]) -> None:
    for run in runs:
        spoil(run, EVIL)
    report(runs, tmp_path / "evil.html")
    dom = chromium(tmp_path, "--dump-dom", (tmp_path / "evil.html").as_uri())
    assert "<title>One-step student: benchmark report</title>" in dom


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_browser_sorts_the_table(tmp_path: Path, runs: list[Path]) -> None:
    """A script added here clicks a heading; the page's own sorts the rows, missing values last."""
    report(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    press = "<script>[...document.querySelectorAll('th button')].find(b => b.textContent.startsWith('Median')).click()"
    (tmp_path / "pressed.html").write_text(page.replace("</body>", press + "</script></body>"))
    dom = chromium(tmp_path, "--dump-dom", (tmp_path / "pressed.html").as_uri())
    assert 'aria-sort="ascending"' in dom
    body = dom.split("<tbody>")[1].split("</tbody>")[0]
    column = dom.split("<thead>")[1].split("</thead>")[0].split("<th ")[1:]
    index = next(i for i, head in enumerate(column) if "Median" in head)
    medians = [re.findall(r'data-sort="([^"]*)"', row)[index] for row in body.split("<tr")[1:]]
    assert medians[-1] == ""
    assert [float(m) for m in medians[:-1]] == sorted(float(m) for m in medians[:-1])


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_no_width_makes_the_page_scroll_sideways(tmp_path: Path, runs: list[Path]) -> None:
    """Not even the table on a phone, which leaves its minor columns out until they are asked for."""
    report(runs, tmp_path / "report.html")
    measure = (
        "<script>t = document.querySelector('.scroll'); shown = getComputedStyle(t.querySelector('.minor')).display;"
        "document.title = [document.documentElement.scrollWidth, innerWidth, t.scrollWidth - t.clientWidth, shown]"
        ".join(' ')</script></body>"
    )
    (tmp_path / "measured.html").write_text((tmp_path / "report.html").read_text().replace("</body>", measure))
    for width in (1280, 500):  # Chromium's window is never narrower than 500: the frame below is
        dom = chromium(tmp_path, f"--window-size={width},900", "--dump-dom", (tmp_path / "measured.html").as_uri())
        title = re.search(r"<title>(\d+) (\d+) 0 ([a-z-]+)</title>", dom)
        assert title is not None
        assert int(title.group(1)) <= int(title.group(2)) == width
        assert title.group(3) == ("none" if width == 500 else "table-cell")
    frame = f'<iframe src="{(tmp_path / "measured.html").as_uri()}" style="width:390px;height:900px;border:0"></iframe>'
    (tmp_path / "frame.html").write_text(frame)
    shot = tmp_path / "phone.png"
    chromium(tmp_path, "--window-size=500,900", f"--screenshot={shot}", (tmp_path / "frame.html").as_uri())
    assert shot.stat().st_size > 5000


def test_the_server_without_scores_is_the_reference(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name, median_ms=1.0) for name in ("server", "android")]
    report(runs, tmp_path / "report.md", baseline=runs[0])
    page = (tmp_path / "report.md").read_text()
    assert [page.count(note) for note in ("The reference, with whose images", "Not evaluated: use")] == [1, 1]
    write_scores(runs[1], runs[0], distance=12.345, server=11.25)
    report(runs, tmp_path / "report.md", baseline=runs[0])
    row = next(line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| server"))
    assert row.endswith("| – [1] | – [1] | 11.250 | – [1] |")
    report(runs, tmp_path / "report.html", baseline=runs[0])
    chart = (tmp_path / "report.html").read_text().partition('id="frontier"')[2]
    assert 'class="server"' in chart


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_the_table_fits_a_window_1100_wide(tmp_path: Path) -> None:
    """With the longest names and the widest values."""
    server = write_run(tmp_path / "server", "server", median_ms=123.4)
    runs = [server, write_run(tmp_path / "run", "android", "mixed", median_ms=123.4)]
    for run in runs:
        record = read_model(run / "record.json", RunRecord)
        wide = {"artifact_bytes": 143_000_000, "peak_memory_bytes": 1_385_200_000, "load_ms": 9234.5}
        name = Runtime(name="coreml-evaluator", version="1", backend=None)
        write_model(run / "record.json", record.model_copy(update={**wide, "runtime": name}))
        write_scores(run, server, distance=12.345, server=12.345)
    report(runs, tmp_path / "report.html", baseline=server)
    measure = (
        "<script>t = document.querySelector('.scroll'); document.title = t.scrollWidth - t.clientWidth</script></body>"
    )
    (tmp_path / "measured.html").write_text((tmp_path / "report.html").read_text().replace("</body>", measure))
    dom = chromium(tmp_path, "--window-size=1100,900", "--dump-dom", (tmp_path / "measured.html").as_uri())
    assert "<title>0</title>" in dom
