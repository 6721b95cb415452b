"""Run the bundle that contains this file on a Jetson: python3 harness/bench.py --plan plan.json --out OUT

Needs Python 3.10, NumPy and TensorRT, or ONNX Runtime with --runtime onnxruntime.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

# Before the imports below: bytecode would be files of the bundle that its manifest does not name.
sys.dont_write_bytecode = True

from tegra import Tegra, modes, versions  # type: ignore[import-not-found]  # beside this file, not in a package

from rdd_edge.errors import DependencyError
from rdd_edge.portable.harness import Harness, main
from rdd_edge.portable.runner import Runner
from rdd_edge.portable.sensors import Sensors

ENGINES = Path.home() / ".cache" / "rdd-edge" / "engines"


class Jetson(Harness):
    runtimes = ("tensorrt", "onnxruntime")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--engines", type=Path, default=ENGINES, help="Cache folder of TensorRT engines.")

    def open(self, arguments: argparse.Namespace, artifact: Path, threads: int, needs: dict[str, Any]) -> Runner:
        if arguments.runtime == "tensorrt":
            from tensorrt_runtime import TensorRT  # type: ignore[import-not-found]

            return TensorRT(artifact, arguments.engines, modes()[0]["power_mode"])  # type: ignore[no-any-return]
        from onnx_runtime import OnnxRuntime  # type: ignore[import-not-found]

        try:
            import onnxruntime
        except ImportError:
            raise DependencyError("--runtime onnxruntime needs onnxruntime: pip install onnxruntime") from None
        return OnnxRuntime(onnxruntime, artifact, threads)  # type: ignore[no-any-return]

    def sensors(self) -> Sensors:
        return Tegra()  # type: ignore[no-any-return]

    def versions(self) -> dict[str, str]:
        return versions()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main(Jetson(), Path(__file__).resolve().parent.parent)
