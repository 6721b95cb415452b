"""`rdd-edge quickstart`: images → one-step student → bundles for each target → benchmark runs → scores → report.

    OUT/run/   OUT/bundles/   OUT/bench/   OUT/student.png   OUT/report.html

Finished training and exports are not repeated, so the same command continues an interrupted quickstart.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from .benchmarking.record import summary
from .benchmarking.run import SCORES, read_bench_run
from .bundle import AccuracyPlan, PerformancePlan, Plan, read_bundle
from .console import ConsoleReporter
from .console import out as console
from .diffusion.checkpoint import REFINED, STUDENT, read_checkpoint
from .distillation.config import Preset
from .distillation.presets import PRESETS
from .errors import ThresholdError
from .files import write_model

if TYPE_CHECKING:
    from .data import ImageSet
    from .evaluation.checkpoint import Row
    from .metrics.extractors import Extractor

# For each target a precision close to the student and a smaller, faster one; `rdd-edge export` has the others.
BUNDLES = {"android": ("fp32", "int8"), "ios": ("fp16", "w8"), "jetson": ("fp16", "int8")}
SAMPLES = 2000
# Shorter than `bench --quick`, in one process: the student of digits takes less than a millisecond.
PERFORMANCE = PerformancePlan(runs=128, seconds=2.0, starts=1)
PLAN = Plan(performance=PERFORMANCE, accuracy=AccuracyPlan(samples=SAMPLES, floats=256))


def quickstart(out: Path, preset: Preset = PRESETS["digits"], plan: Plan = PLAN, minutes: float | None = None) -> None:
    """Run every step under the folder `out`. Finished steps stay if a later one raises.

    minutes: for the training, as in `distill`. A precision whose images are too far from the student's is left out,
    and so is a refined student that is worse than the one before it.
    """
    start = time.monotonic()
    from .diffusion.sampling import sample_images
    from .distillation.run import distill
    from .drawing.grid import save_grid
    from .evaluation.sources import evaluation_sources
    from .reporting.report import report

    run, bundles, benches = out / "run", out / "bundles", out / "bench"
    console.print(f"Training a one-step student on {preset.data} in {run}")
    with ConsoleReporter():
        distill(preset, run, minutes=minutes)
    real, judge = evaluation_sources(run, None, None)
    student = _evaluate(run, preset, real, judge)
    save_grid(sample_images(read_checkpoint(student), 64, 1, 0), out / "student.png")
    chosen = [(target, precision) for target, precisions in BUNDLES.items() for precision in precisions]
    names = ["server", *_export(student, chosen, bundles)]
    for name in names:
        _bench(student if name == "server" else bundles / name, benches / name, plan)
    for name in names[1:]:
        _score(benches / name, benches / "server", real, judge)
    report([benches / name for name in names], out / "report.html", baseline=benches / "server")
    console.print(f"Done in {(time.monotonic() - start) / 60:.1f} minutes.")
    console.print(f"Samples of the student: {out / 'student.png'}")
    console.print(f"Report:                 {out / 'report.html'}")


def _evaluate(run: Path, preset: Preset, real: ImageSet, judge: Extractor) -> Path:
    """Evaluate where the halvings start, where they end, and the refined student, with the judge that none has seen.

    Returns the run, which stands for its last student, or the student before the refined one where that is better.
    """
    from .distillation.run_folder import base_stage
    from .evaluation.checkpoint import evaluate

    stages = {base_stage(preset): (preset.base_steps,), STUDENT: (), **({REFINED: ()} if preset.refines else {})}
    with ConsoleReporter():
        found = [evaluate(run / name, steps, SAMPLES, 0, real, judge) for name, steps in stages.items()]
    together = found[0].model_copy(update={"rows": tuple(row for one in found for row in one.rows)})
    write_model(run / "evaluation.json", together)
    for line in together.lines():
        console.print(line)
    if preset.refines and _is_worse(together.rows[-1], together.rows[-2]):
        console.print(f"The refined student is worse: {run / STUDENT} is exported; give more --minutes")
        return run / STUDENT
    return run


def _is_worse(row: Row, other: Row) -> bool:
    """Whether the intervals of the two distances leave no doubt."""
    low, high = row.distance_low, other.distance_high
    return low is not None and high is not None and low > high


def _export(checkpoint: Path, chosen: list[tuple[str, str]], out: Path) -> list[str]:
    """Build the bundles of these targets and precisions. Returns the names of those that are good enough."""
    from .exporting.pipeline import export_bundles

    student, names = read_checkpoint(checkpoint).sha256, []
    for target, precision in chosen:
        name = f"{target}-{precision}"
        if not _is_bundle_of(out / name, student):
            try:
                with ConsoleReporter():
                    export_bundles(checkpoint, (target,), precision, out)
            except ThresholdError as error:
                console.print(f"Left out: {error}")
                continue
        names.append(name)
    return names


def _is_bundle_of(folder: Path, student: str) -> bool:
    return folder.is_dir() and read_bundle(folder).manifest.checkpoint_sha256 == student


def _bench(source: Path, out: Path, plan: Plan) -> None:
    from .benchmarking.bench import bench

    device = "server" if out.name == "server" else "host"
    with ConsoleReporter(f"bench {out.name}:"):
        record = bench(source, device, out, plan)
    stats = summary(record)
    reason = record.missing.get("latency_ms", "no reason given")
    line = f"{stats.median:.3f} ms median" if stats else f"latency not measured: {reason}"
    console.print(f"{out.name:<12} {line}")


def _score(bench: Path, server: Path, real: ImageSet, judge: Extractor) -> None:
    from .evaluation.scores import score

    if read_bench_run(bench).record.samples is None:
        return
    scores = score(bench, server, real, judge, bench / SCORES)
    for line in scores.lines(neighbors=False):  # those of the student are printed above, and the report has all
        console.print(line)
