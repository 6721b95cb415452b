"""The variants that export.py compares: rdd-edge's export of a one-step student, and the vendors' own recipes.

Each builder writes one file, which `open_runner` opens. "Naive" is the recipe of ExecuTorch's XNNPACK page
(torch.export → XnnpackPartitioner, for int8 XNNPACKQuantizer.set_global with 8 calibration samples), applied to the
student with t fixed at 1. ONNX Runtime's recipe is torch.onnx.export and, for int8, its own pre-processing and static
quantization: once with the defaults, once with only convolutions and matrix products quantized, per channel.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.exporting.parity import calibration_set
from rdd_edge.exporting.program import OneStep, export_program
from rdd_edge.exporting.rewrites import apply_rewrites
from rdd_edge.portable.noise import normals
from rdd_edge.targets import load_target
from rdd_edge.targets.base import ExportSpec

__all__ = ["BUILDERS", "WITHOUT", "build", "inputs", "lower_with", "open_runner", "ours"]

OPSET = 20
NAIVE_CALIBRATION = 8
Build = Callable[[Path, Path], None]  # from a checkpoint; writes a file under this name, with its own suffix
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def inputs(checkpoint: Path, samples: int, seed: int = 0) -> NDArray[np.float32]:
    """z (N, C, H, W)."""
    return normals(seed, range(samples), read_checkpoint(checkpoint).image_shape)


def build(name: str, checkpoint: Path, folder: Path) -> None:
    """Write folder/name.* for `open_runner`."""
    {**BUILDERS, **WITHOUT}[name](checkpoint, folder / name)


def _function(checkpoint: Path) -> OneStep:
    return OneStep(read_checkpoint(checkpoint).load()).eval()


def _example(checkpoint: Path) -> tuple[torch.Tensor]:
    return (torch.zeros(1, *read_checkpoint(checkpoint).image_shape),)


def ours(precision: str) -> dict[str, Build]:
    """rdd-edge's export for Android, "ours-fp32", and without each of its rewrites, "ours-fp32-without-winograd"."""
    rewrites = load_target("android").precision(precision).rewrites

    def builder(kept: tuple[str, ...]) -> Build:
        def build(checkpoint: Path, out: Path) -> None:
            student = read_checkpoint(checkpoint)
            program = export_program(student.load(), (1, *student.image_shape), None)
            lower_with(program, student.image_shape, precision, kept, out.with_suffix(".pte"))

        return build

    without = {
        f"ours-{precision}-without-{name}": tuple(kept for kept in rewrites if kept != name) for name in rewrites
    }
    return {name: builder(kept) for name, kept in {f"ours-{precision}": rewrites, **without}.items()}


def lower_with(
    program: torch.export.ExportedProgram, image_shape: tuple[int, int, int], precision: str, rewrites: tuple[str, ...],
    path: Path,
) -> None:  # fmt: skip
    """Write the .pte file that the exporter makes for Android with these rewrites."""
    target, spec = load_target("android"), ExportSpec(precision, (1, *image_shape), None)
    rewritten = apply_rewrites(program, rewrites)
    if target.precision(precision).quantized:
        rewritten = target.quantize(rewritten, spec, calibration_set(image_shape, None), ())
    with tempfile.TemporaryDirectory() as name:
        path.write_bytes(target.lower(rewritten, spec, Path(name)).path.read_bytes())


def _naive_fp32(checkpoint: Path, out: Path) -> None:
    program = torch.export.export(_function(checkpoint), _example(checkpoint))
    _to_xnnpack(program, out)


def _naive_int8(checkpoint: Path, out: Path) -> None:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = _example(checkpoint)
    module = torch.export.export(_function(checkpoint), example).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for z in inputs(checkpoint, NAIVE_CALIBRATION, seed=1):
            prepared(torch.from_numpy(z[None]))
        converted = convert_pt2e(prepared)
    _to_xnnpack(torch.export.export(converted, example), out)


def _to_xnnpack(program: torch.export.ExportedProgram, out: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    out.with_suffix(".pte").write_bytes(edge.to_executorch().buffer)


def _ort_fp32(checkpoint: Path, out: Path) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            _function(checkpoint), _example(checkpoint), dynamo=True, opset_version=OPSET, verbose=False
        )
    assert program is not None
    program.save(out.with_suffix(".onnx"))


def _ort_int8(products: bool) -> Callable[[Path, Path], None]:
    """The defaults, which are all operators with one scale per tensor; or products alone, with one scale per channel.

    InstanceNormalization is left out of the defaults, which fail on one whose weights are shared ("shared mode is not
    supported for weight").
    """
    chosen = {"per_channel": True, "op_types_to_quantize": ["Conv", "Gemm", "MatMul"]}

    def builder(checkpoint: Path, out: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, quantize_static
        from onnxruntime.quantization.registry import QDQRegistry
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                calibration = calibration_set(read_checkpoint(checkpoint).image_shape, None, NAIVE_CALIBRATION)
                self._rows = iter(calibration.z[:, None])

            def get_next(self) -> dict[str, Any] | None:
                row = next(self._rows, None)
                return None if row is None else {"z": row}

        with tempfile.TemporaryDirectory() as name:
            plain, ready = Path(name) / "plain", Path(name) / "ready.onnx"
            _ort_fp32(checkpoint, plain)
            everything = {"op_types_to_quantize": [kind for kind in QDQRegistry if kind != "InstanceNormalization"]}
            quant_pre_process(plain.with_suffix(".onnx"), ready)
            quantize_static(ready, out.with_suffix(".onnx"), Reader(), **(chosen if products else everything))

    return builder


def _eager(checkpoint: Path, out: Path) -> None:
    out.with_suffix(".json").write_text(json.dumps(str(checkpoint.resolve())))


OURS = {**ours("fp32"), **ours("int8")}
BUILDERS: dict[str, Build] = {
    "eager-fp32": _eager,
    "ort-fp32": _ort_fp32,
    "naive-fp32": _naive_fp32,
    "ours-fp32": OURS["ours-fp32"],
    "ort-int8": _ort_int8(products=False),
    "ort-int8-products": _ort_int8(products=True),
    "naive-int8": _naive_int8,
    "ours-int8": OURS["ours-int8"],
}
WITHOUT = {name: build for name, build in OURS.items() if name not in BUILDERS}


def open_runner(folder: Path, name: str, threads: int) -> Run:
    """A function from z (1, C, H, W) to x (1, C, H, W) that runs what `build` wrote under this name."""
    torch.set_num_threads(threads)
    if (path := folder / f"{name}.pte").is_file():
        from rdd_edge.targets.android.runner import ExecuTorchRunner

        runner = ExecuTorchRunner(path, threads)
        runner.load()
        return lambda z: runner.run(z, None)
    if (path := folder / f"{name}.onnx").is_file():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        return lambda z: session.run(None, {source.name: z})[0]
    function = _function(Path(json.loads((folder / f"{name}.json").read_text())))

    def eager(z: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return function(torch.from_numpy(z)).numpy()

    return eager
