"""Parity of every Android precision of every preset's network on ARM's own kernels, under emulation: one table.

    apt-get install g++-aarch64-linux-gnu qemu-user-static      # once, as root
    python benchmarks/arm64_parity.py --digits runs/digits --work table
    python benchmarks/arm64_parity.py --presets imagenet64 --precisions int8 --cpus cortex-a76 --work table

The digits network is that of a training run; the larger ones have random weights. Each bundle is exported as
`rdd-edge export` does, low parity allowed, and run as `rdd-edge verify --arch arm64` does: digits on all of its parity
vectors, the others on the first ones. Results are kept in the work folder, so that a run that was stopped goes on where
it was, and runs with other options complete the same table. Vulkan has no emulation. Mixed precision is int8 but for
the layers that a budget keeps; it is built for digits alone, with a budget of 2 dB above int8.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from export import random_student

from rdd_edge.benchmarking.verify import verify_emulated
from rdd_edge.bundle import read_bundle
from rdd_edge.dependencies import silenced
from rdd_edge.distillation.presets import PRESETS, preset
from rdd_edge.exporting.budget import PsnrBudget
from rdd_edge.exporting.pipeline import export_bundles
from rdd_edge.targets.android.arm64 import CPU_MODELS

DIGITS, MIXED = "digits", "mixed"
PRECISIONS = ("fp32", "fp16", "int8", MIXED)
CLASSES = 1000  # of a conditional preset
MIXED_GAIN_DB = 2.0
Cell = tuple[int, float, float]  # images, median and worst PSNR in dB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="training run of the digits preset; without it digits is left out")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=PRESETS, help="default: all")
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS, choices=PRECISIONS, help="default: all")
    parser.add_argument("--cpus", nargs="*", default=CPU_MODELS, help="CPU models of qemu; default: those of verify")
    parser.add_argument("--images", type=int, default=1, help="parity vectors of the larger networks; default: 1")
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and results, which are reused")
    arguments = parser.parse_args()
    results = Results(arguments.work / "results.json")
    for name in arguments.presets:
        classes = CLASSES if preset(name).conditional else None
        folder = arguments.work / f"student-{name}"
        checkpoint = arguments.digits if name == DIGITS else random_student(name, folder, classes)
        if checkpoint is None:
            continue
        for precision in arguments.precisions:
            if precision == MIXED and name != DIGITS:
                continue
            bundle = exported(checkpoint, precision, arguments.work / name)
            for cpu in arguments.cpus:
                if not results.has(name, precision, cpu):
                    images = None if name == DIGITS else arguments.images
                    (report,) = verify_emulated(bundle, "arm64", (cpu,), images)
                    assert report.psnr_db is not None and report.worst_psnr_db is not None
                    results.add(name, precision, cpu, (report.samples, report.psnr_db, report.worst_psnr_db))
    print(results.table(arguments.cpus))


class Results:
    """Cells of the table by preset, precision and CPU model, kept in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[str, Cell] = json.loads(path.read_text()) if path.is_file() else {}

    def has(self, *key: str) -> bool:
        return "|".join(key) in self._cells

    def add(self, name: str, precision: str, cpu: str, cell: Cell) -> None:
        self._cells[f"{name}|{precision}|{cpu}"] = cell
        self._path.write_text(json.dumps(self._cells, indent=2))
        print(f"{name} {precision} on {cpu}: {cell[1]:.1f} dB median, {cell[2]:.1f} dB worst", file=sys.stderr)

    def table(self, cpus: list[str]) -> str:
        """Median PSNR in dB, with the worst image where there are several; – where it was not run."""
        rows = dict.fromkeys(tuple(key.split("|")[:2]) for key in self._cells)
        lines = ["| Network | Precision | Images |" + "".join(f" `{cpu}` |" for cpu in cpus)]
        lines.append("|---|---|---:|" + "---:|" * len(cpus))
        for name, precision in rows:
            cells = [self._cells.get(f"{name}|{precision}|{cpu}") for cpu in cpus]
            images = max(cell[0] for cell in cells if cell) if any(cells) else 0
            lines.append(f"| {name} | {precision} | {images} |" + "".join(f" {shown(cell)} |" for cell in cells))
        return "\n".join(lines)


def shown(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    images, median, worst = cell
    return f"{median:.1f}" if images == 1 else f"{median:.1f} ({worst:.1f})"


def exported(checkpoint: Path, precision: str, out: Path) -> Path:
    """The bundle of a precision, built on first use."""
    folder = out / f"android-{precision}"
    if not folder.is_dir():
        budget = None
        if precision == MIXED:
            reached = read_bundle(exported(checkpoint, "int8", out)).manifest.parity.psnr_db
            budget = PsnrBudget((reached or 0.0) + MIXED_GAIN_DB)
        with silenced():
            export_bundles(checkpoint, ("android",), precision, out, budget=budget, allow_low_parity=True)
    return folder


if __name__ == "__main__":
    main()
