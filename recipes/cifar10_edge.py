"""Train, compare and pack a one-step CIFAR-10 student of 9 M parameters: about half an hour on one large GPU.

    python recipes/cifar10_edge.py --data CIFAR10 --judge resnet20:resnet20-12fca82f.th
    python recipes/cifar10_edge.py --data … --judge … --max-minutes 8    stop in time; the same command continues
    python recipes/cifar10_edge.py --data … --judge … --rehearse         all of it, tiny, on a CPU

Extractor, teacher, PD from 64 sampling steps to 8, RDD from 8 to 1, refining; then RCFD and PD from the same 8-step
student with as many training steps. WORK/results has figures, grids and a summary, WORK/cifar10-edge the packed
student. If RDD_EDGE_INCEPTION names the Inception weights, the model card has FID as well.
"""

import argparse
import json
import os
import time
from pathlib import Path

import rdd_edge
from rdd_edge.console import ConsoleReporter
from rdd_edge.distillation.trainer import OutOfTime
from rdd_edge.drawing.grid import save_grid
from rdd_edge.errors import RddEdgeError
from rdd_edge.files import write_bytes
from rdd_edge.release.pack import pack

MAIN = 0.8  # of the time for the RDD run; RCFD and PD repeat its last three halvings
TINY = [
    "network.channels=[16,32]", "network.attention=[]", "network.blocks=1", "network.groups=8", "first_steps=16",
    "extractor.widths=[1,1,1]", "extractor.growth=4", "extractor.stem=8", "memory.capacity=64", "memory.draw=16",
    "teacher.batch=16", "teacher.warmup=5", "pd.batch=8", "distillation.batch=8", "refining.training.batch=8",
    "refining.width=8", "compute.compile=true",
]  # fmt: skip


def recipe(options: argparse.Namespace, deadline: float) -> str:
    """Everything that the folder `work` does not have yet; returns the summary. Raises OutOfTime past the deadline."""
    work: Path = options.work
    results, model, samples = work / "results", work / "cifar10-edge", 100 if options.rehearse else 10_000
    distances: dict[str, float] = {}

    def train(name: str, **settings: object) -> Path:
        left = max(0.0, deadline - time.monotonic()) / 60
        run = rdd_edge.distill(work / name, data=options.data, save_seconds=120, max_minutes=min(left, 1e6), **settings)
        if run.stopped:
            raise OutOfTime(f"{name}: {run.stopped}")
        return run.folder

    def evaluate(name: str, checkpoint: Path, steps: int = 1) -> None:
        if not (path := results / f"{name}.json").exists():
            if time.monotonic() >= deadline:
                raise OutOfTime(f"stopped before the evaluation of {name}")
            save_grid(rdd_edge.sample(checkpoint, steps=steps), path.with_suffix(".png"))
            rdd_edge.evaluate(
                checkpoint, n=samples, steps=[steps], data=options.data, extractor=options.judge, out=path
            )
        distances[name] = json.loads(path.read_text())["rows"][0]["distance"]

    settings = TINY if options.rehearse else []
    run = train("run", preset="cifar10-edge", minutes=MAIN * options.budget, settings=settings)
    evaluate("teacher", run / "teacher", 16 if options.rehearse else 64)
    for steps in (8, 4, 2, 1):
        evaluate(f"rdd-{steps}", run / f"student-{steps}", steps)
    evaluate("refined", run / "refined")
    if not model.exists():
        extractors = [options.judge, "inception"] if os.environ.get("RDD_EDGE_INCEPTION") else [options.judge]
        pack(run, model.name, model, count=samples, data=options.data, extractors=extractors)
    for method in ("rcfd", "pd"):  # with the settings of `run`
        evaluate(f"{method}-1", train(method, method=method, start_from=run, refine=False))
    rows = [f"| {name} | {value:.3f} | {value / distances['rdd-1']:.2f} |" for name, value in distances.items()]
    summary = "\n".join(["| checkpoint | distance | relative to rdd-1 |", "|---|---:|---:|", *rows, ""])
    write_bytes(results / "summary.md", summary.encode())
    return f"{summary}\nfinished: {results} and {model}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10, as for rdd-edge distill")
    parser.add_argument("--judge", required=True, help="extractor of the distances, as for rdd-edge evaluate")
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10-edge"), help="folder for all results")
    parser.add_argument("--budget", type=float, default=18.0, help="minutes of training in total (default: 18)")
    parser.add_argument("--max-minutes", type=float, default=1e6, help="stop this call cleanly after so long")
    parser.add_argument("--rehearse", action="store_true", help="tiny networks and few samples, on a CPU")
    options = parser.parse_args()
    if not (0 < options.budget < 1e6 and 0 <= options.max_minutes <= 1e6):
        parser.error("--budget must be above 0 and --max-minutes at least 0, both below a million")
    try:
        with ConsoleReporter():
            print(recipe(options, time.monotonic() + 60 * options.max_minutes))
    except OutOfTime as stop:
        print(f"{stop}: the same command continues")
    except KeyboardInterrupt as stop:
        parser.exit(130, f"{str(stop) or 'interrupted'}: the same command continues\n")
    except RddEdgeError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
