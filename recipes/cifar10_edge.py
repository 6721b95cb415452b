"""Train, compare and pack a one-step CIFAR-10 student of 9 M parameters: about half an hour on one large GPU.

    python recipes/cifar10_edge.py --data CIFAR10 --judge resnet20:resnet20-12fca82f.th
    python recipes/cifar10_edge.py --data … --judge … --max-minutes 8    stop in time; the same command continues
    python recipes/cifar10_edge.py --data … --judge … --rehearse         all of it, tiny, on a CPU

Extractor, teacher, PD from 64 sampling steps to 8 and RDD from 8 to 1; then RCFD and PD from the same 8-step student
with as many training steps. WORK/results has figures, grids and a summary, WORK/cifar10-edge the packed student. If
RDD_EDGE_INCEPTION names the Inception weights, the model card has FID as well.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import rdd_edge
from rdd_edge.console import ConsoleReporter
from rdd_edge.distillation.trainer import OutOfTime
from rdd_edge.drawing.grid import save_grid
from rdd_edge.errors import RddEdgeError, UsageError
from rdd_edge.files import write_bytes
from rdd_edge.release.pack import pack

# Dropout, which a teacher of 800,000 steps needs, only slows down a short training.
COMMON = """network.dropout=0 extractor_training.batch=256 teacher.cosine=true pd_late=false pd.rate=1e-4
 distillation.rate=1e-4 compute.device_noise=true"""
FULL = f"""{COMMON} teacher.batch=512 teacher.rate=5e-4 teacher.warmup=500 teacher.ema=0.9995 first_steps=64
 pd.batch=512 distillation.batch=512 extractor.name=cifar10_densenet extractor.widths=[6,6,6,6] extractor.growth=24
 extractor.stem=48""".split()
TINY = f"""{COMMON} teacher.batch=16 teacher.rate=1e-3 teacher.warmup=5 teacher.ema=0.9 first_steps=16 pd.batch=8
 distillation.batch=8 memory.capacity=64 memory.draw=16 network.channels=[16,32] network.attention=[] network.blocks=1
 network.groups=8 extractor.name=tiny extractor.widths=[1,1,1] extractor.growth=4 extractor.stem=8""".split()


def plan(work: Path, budget: float, rehearse: bool) -> list[str]:
    """Settings that divide `budget` minutes among the stages by the measured time of a step; kept in settings.json."""
    path, speed, base = work / "settings.json", work / "results" / "speed.json", TINY if rehearse else FULL
    if not path.exists():
        options = ["--preset", "cifar10-edge", "--steps", "2" if rehearse else "30", "--json", str(speed), "--stage",
                   "extractor", "teacher", "pd", "rcfd", "rdd", *(f"--set={setting}" for setting in base)]  # fmt: skip
        script = Path(__file__).resolve().parents[1] / "benchmarks" / "train_step.py"
        if code := subprocess.run([sys.executable, str(script), *options]).returncode:
            sys.exit(code)
        step = {name: stage["step_seconds"] for name, stage in json.loads(speed.read_text())["stages"].items()}
        seconds, folds = 60 * (0.4 if rehearse else budget), 1 if rehearse else 3  # halvings down to 8 sampling steps
        counts = {
            "extractor_training.epochs": min(60, 0.08 * seconds / (step["extractor"] * 45_000 / 256)),
            "teacher.steps": 0.52 * seconds / step["teacher"],
            "pd.steps": 0.10 * seconds / (folds * step["pd"]),
            "distillation.steps": 0.30 * seconds / (3 * (step["pd"] + step["rcfd"] + step["rdd"])),
        }
        counted = [f"{key}={max(1, int(count))}" for key, count in counts.items()]
        write_bytes(path, json.dumps([*base, *counted], indent=2).encode())
    settings: list[str] = json.loads(path.read_text())
    if settings[: len(base)] != base:
        raise UsageError(f"{work} was started {'without' if rehearse else 'with'} --rehearse: use another --work")
    return settings


def recipe(work: Path, data: str, judge: str, budget: float, deadline: float, rehearse: bool) -> None:
    """Everything that `work` does not have yet. Raises OutOfTime past the deadline."""
    results, model, samples = work / "results", work / "cifar10-edge", 100 if rehearse else 10_000
    settings = plan(work, budget, rehearse)
    distances: dict[str, float] = {}

    def train(name: str, method: str | None = None, start_from: Path | None = None) -> Path:
        minutes = max(0.0, deadline - time.monotonic()) / 60
        run = rdd_edge.distill(work / name, preset="cifar10-edge", data=data, settings=settings, method=method,
                               start_from=start_from, save_seconds=120, max_minutes=minutes)  # fmt: skip
        if run.stopped:
            raise OutOfTime(run.stopped)
        return run.folder

    def evaluate(name: str, checkpoint: Path, steps: int) -> None:
        if not (path := results / f"{name}.json").exists():
            if time.monotonic() >= deadline:
                raise OutOfTime(f"stopped before the evaluation of {name}")
            save_grid(rdd_edge.sample(checkpoint, steps=steps), path.with_suffix(".png"))
            rdd_edge.evaluate(checkpoint, n=samples, steps=[steps], data=data, extractor=judge, out=path)
        distances[name] = json.loads(path.read_text())["rows"][0]["distance"]

    run = train("run")
    evaluate("teacher", run / "teacher", 16 if rehearse else 64)
    for steps in (8, 4, 2, 1):
        evaluate(f"rdd-{steps}", run / f"student-{steps}", steps)
    if not model.exists():
        extractors = [judge, "inception"] if os.environ.get("RDD_EDGE_INCEPTION") else [judge]
        pack(run, model.name, model, count=samples, data=data, extractors=extractors)
    for method in ("rcfd", "pd"):
        evaluate(f"{method}-1", train(method, method, run), 1)
    rows = [f"| {name} | {value:.3f} | {value / distances['rdd-1']:.2f} |" for name, value in distances.items()]
    summary = "\n".join(["| checkpoint | distance | relative to rdd-1 |", "|---|---:|---:|", *rows, ""])
    write_bytes(results / "summary.md", summary.encode())
    print(f"{summary}\nfinished: {results} and {model}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10, as for rdd-edge distill")
    parser.add_argument("--judge", required=True, help="extractor of the distances, as for rdd-edge evaluate")
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10-edge"), help="folder for all results")
    parser.add_argument("--budget", type=float, default=18.0, help="minutes of training in total (default: 18)")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="stop this call cleanly after so long")
    parser.add_argument("--rehearse", action="store_true", help="tiny networks and few samples, on a CPU")
    options = parser.parse_args()
    if not (0 < options.budget < 1e6 and options.max_minutes >= 0):
        parser.error("--budget must be above 0 and --max-minutes at least 0")
    deadline = time.monotonic() + 60 * options.max_minutes
    try:
        with ConsoleReporter():
            recipe(options.work, options.data, options.judge, options.budget, deadline, options.rehearse)
    except OutOfTime as stop:
        print(f"{stop}: the same command continues")
    except RddEdgeError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
