"""The harness on TensorRT: the whole of it, in the calls of 10.3 and of 11.4, on a board that has no GPU.

The fake of tests/fakes/jetson enforces what NVIDIA's compiled bindings of these releases say of themselves, and the
declarations of CUDA's header; ONNX Runtime does the engine's work, so that the images can be compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tanh_onnx import write_tanh_bundle

import rdd_edge.targets
from rdd_edge.benchmarking.record import RunRecord
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import MANIFEST, AccuracyPlan, PerformancePlan, Plan
from rdd_edge.files import sha256_of, write_model
from rdd_edge.portable import noise

BOARD = Path(__file__).parent.parent / "fakes" / "jetson"
HARNESS = Path(rdd_edge.targets.__path__[0]) / "jetson" / "harness"
RELEASES = ("10.3.0", "11.4.0.106")
CUDA = {"10.3.0": "12.6", "11.4.0.106": "13.5"}
PLAN = Plan(
    performance=PerformancePlan(warmup=2, runs=5, seconds=0),
    accuracy=AccuracyPlan(samples=70, seed=2**63 + 5, floats=10),
    threads=1,
)


def run(
    bundle: Path, out: Path, *more: str, release: str | None = "10.3.0", **environment: str
) -> subprocess.CompletedProcess[str]:
    write_model(bundle.parent / "plan.json", PLAN)
    command = [sys.executable, "-B", str(bundle / "harness" / "bench.py"), "--plan", str(bundle.parent / "plan.json")]
    command += ["--out", str(out), "--engines", str(bundle.parent / "engines"), *more]
    told = {**os.environ, "PYTHONPATH": str(BOARD), **environment}
    if release:
        told["FAKE_TENSORRT"] = release
    return subprocess.run(command, capture_output=True, text=True, env=told, check=False)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("label_type", [None, "INT64", "INT32"])
def test_its_images_are_those_of_the_graph(tmp_path: Path, release: str, label_type: str | None) -> None:
    bundle = write_tanh_bundle(tmp_path, classes=10 if label_type else None, label_type=label_type or "INT64")
    done = run(bundle, tmp_path / "out", release=release)
    assert done.returncode == 0, done.stderr
    mine = read_bench_run(tmp_path / "out")
    record = mine.record
    assert record.runtime is not None
    assert (record.runtime.name, record.runtime.version, record.runtime.backend) == (
        "tensorrt", release, "Orin, CUDA graph",
    )  # fmt: skip
    x = np.tanh(noise.normals(2**63 + 5, range(10), (1, 8, 8)))
    if label_type:
        x = x * (noise.labels(range(10), 10) / 10.0).astype(np.float32)[:, None, None, None]
    np.testing.assert_allclose(mine.floats(), x.transpose(0, 2, 3, 1), atol=1e-6)
    if label_type != "INT32":  # which ONNX Runtime's runner, that feeds int64 as it is, does not take
        other = run(bundle, tmp_path / "ort", "--runtime", "onnxruntime", release=release)
        assert other.returncode == 0, other.stderr
        np.testing.assert_array_equal(mine.images(), read_bench_run(tmp_path / "ort").images())
        np.testing.assert_array_equal(mine.floats(), read_bench_run(tmp_path / "ort").floats())
    assert record.build_ms is not None
    assert record.load_ms is not None
    assert record.latency_ms is not None
    assert record.transfers is not None
    assert "GPU memory" in record.missing["peak_memory_bytes"]
    parts = record.transfers
    assert len(record.latency_ms) == len(parts.to_device_ms) == len(parts.compute_ms) == len(parts.from_device_ms) == 5
    for latency, *ms in zip(record.latency_ms, parts.to_device_ms, parts.compute_ms, parts.from_device_ms, strict=True):
        assert latency > sum(ms) > max(ms) > 0  # the host's time of the whole, around the GPU's of its parts
    assert record.versions["cuda"] == record.versions["cuda driver"] == CUDA[release]
    label_bytes = {None: 0, "INT64": 8, "INT32": 4}[label_type]
    assert record.device_memory_bytes == 2 * 8 * 8 * 4 + label_bytes


@pytest.mark.parametrize("release", RELEASES)
def test_layers_have_times_and_types(tmp_path: Path, release: str) -> None:
    bundle = write_tanh_bundle(tmp_path, classes=10)
    assert run(bundle, tmp_path / "out", release=release).returncode == 0
    operators = read_bench_run(tmp_path / "out").record.operators
    assert operators is not None
    assert [(o.name, o.kind, o.milliseconds, o.backend) for o in operators] == [
        (name, f"fake {kind}", 0.25, "tensorrt")
        for name, kind in (("tanh", "Tanh"), ("cast", "Cast"), ("div", "Div"), ("mul", "Mul"))
    ]


def power_mode(folder: Path, name: str) -> str:
    """A PATH whose nvpmodel reports this mode."""
    program = folder / name / "nvpmodel"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf 'NV Power Mode: {name}\\n0\\n'\n")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def test_an_engine_is_built_once_for_a_graph_and_a_board(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path)
    record = rerun(bundle, tmp_path)
    assert record.build_ms is not None
    assert record.compiled_before is False
    record = rerun(bundle, tmp_path)
    assert record.build_ms is None
    assert record.compiled_before is True
    assert "found in the cache" in record.missing["build_ms"]
    others = [
        {"release": "11.4.0.106"}, {"FAKE_GPU": "NVIDIA Thor/2"}, {"FAKE_PROCESSORS": "16"},
        {"PATH": power_mode(tmp_path, "15W")}, {"PATH": power_mode(tmp_path, "MAXN SUPER")},
    ]  # fmt: skip
    for other in others:
        assert rerun(bundle, tmp_path, **other).build_ms is not None, other
        assert rerun(bundle, tmp_path, **other).build_ms is None, other
    boards = (
        "10.3.0_Orin_sm8.7_8sm_cuda12.6_driver12.6", "11.4.0.106_Orin_sm8.7_8sm_cuda13.5_driver13.5",
        "10.3.0_NVIDIA_Thor_2_sm8.7_8sm_cuda12.6_driver12.6", "10.3.0_Orin_sm8.7_16sm_cuda12.6_driver12.6",
        "10.3.0_Orin_sm8.7_8sm_cuda12.6_driver12.6_15W", "10.3.0_Orin_sm8.7_8sm_cuda12.6_driver12.6_MAXN_SUPER",
    )  # fmt: skip
    content = (bundle / "model.fake").read_bytes() + (bundle / "harness" / "engine.py").read_bytes()
    graph = hashlib.sha256(content).hexdigest()
    assert sorted(path.name for path in (tmp_path / "engines").iterdir()) == sorted(
        f"{prefix}{board}{ending}"
        for board in boards
        for prefix, ending in ((f"{graph}-", ".engine"), (f"{graph}-", ".json"), ("", ".timing"))
    )


def rerun(bundle: Path, folder: Path, release: str = "10.3.0", **environment: str) -> RunRecord:
    done = run(bundle, folder / "out", release=release, **environment)
    assert done.returncode == 0, done.stderr
    return read_bench_run(folder / "out").record


def test_warnings_of_the_build_are_in_each_record_of_its_engine(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path)
    for _ in range(2):  # the second finds the engine in the cache
        assert rerun(bundle, tmp_path).warnings == ("[TRT] Weights [name=w] are subnormal ?[31min float16",)
    (notes,) = (tmp_path / "engines").glob("*.json")
    notes.unlink()
    assert rerun(bundle, tmp_path).build_ms is not None
    notes.write_text("[")
    refused(
        tmp_path / "other", run(bundle, tmp_path / "other" / "out"), 8, ".json is damaged: remove the file to build"
    )


def test_the_progress_names_the_build_before_the_load(tmp_path: Path) -> None:
    done = run(write_tanh_bundle(tmp_path), tmp_path / "out")
    told = [json.loads(line)["stage"] for line in done.stdout.splitlines()]
    assert told[:3] == ["build", "load", "first"]


def rehash(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = sha256_of(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def refused(tmp_path: Path, done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_what_a_board_lacks_is_a_sentence(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path)
    refused(tmp_path, run(bundle, tmp_path / "out", release=None), 6, "needs TensorRT's Python bindings")
    refused(tmp_path, run(bundle, tmp_path / "out", FAKE_CUDART="none"), 6, "needs libcudart")
    refused(tmp_path, run(bundle, tmp_path / "out", FAKE_GPU=""), 12, "no CUDA-capable device is detected (CUDA error")


@pytest.mark.parametrize(
    ("version", "known"),
    [("10.3.0", True), ("10.3.0.30", True), ("10.16.1.11", True), ("11.4.1", True), ("10.2.0", False), ("8.6.1", False),
     ("12.0.0", False)],
)  # fmt: skip
def test_a_release_that_the_harness_does_not_know_is_refused(tmp_path: Path, version: str, known: bool) -> None:
    (tmp_path / "tensorrt.py").write_text(f"__version__ = {version!r}")
    code = "import engine\ntry: engine.import_tensorrt()\nexcept Exception as error: print(type(error).__name__, error)"
    path = os.pathsep.join([str(tmp_path), str(HARNESS), str(HARNESS.parents[3])])
    told = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, env=told, check=True)
    refusal = f"DependencyError TensorRT {version} is not supported: install a version from 10.3 to 11\n"
    assert done.stdout == ("" if known else refusal)


def test_tensorrts_own_words_reach_the_user(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path)
    good = (bundle / "model.fake").read_bytes()
    (bundle / "model.fake").write_bytes(b"no graph")
    rehash(bundle, "model.fake")
    refused(tmp_path, run(bundle, tmp_path / "out"), 8, "TensorRT 10.3.0 cannot read")
    (bundle / "model.fake").write_bytes(renamed(good))
    rehash(bundle, "model.fake")
    done = run(bundle, tmp_path / "out")
    refused(tmp_path, done, 8, "cannot build an engine of")
    assert "Error Code 10: Internal Error (Could not find" in done.stderr
    assert "second line" not in done.stderr


def renamed(graph: bytes) -> bytes:
    import onnx

    model = onnx.load_model_from_string(graph)
    model.graph.node[0].name = "unbuildable"
    return model.SerializeToString()


def test_a_damaged_cache_is_a_sentence(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path)
    assert run(bundle, tmp_path / "first").returncode == 0
    (engine,) = (tmp_path / "engines").glob("*.engine")
    engine.write_bytes(b"half an eng")
    refused(tmp_path, run(bundle, tmp_path / "out"), 8, "magicTag assertion failed); remove the file to build it again")
    engine.unlink()
    (timing,) = (tmp_path / "engines").glob("*.timing")
    timing.write_bytes(b"gone")
    refused(tmp_path, run(bundle, tmp_path / "out"), 8, "cannot read its timing cache")


# ---- faults planted in the harness: the fake refuses each ----

PLANTED = {
    "a flag that 11 lost": (
        "engine.py", "1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)",
        "1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)",
        {"11.4.0.106": "has no attribute 'EXPLICIT_BATCH'", "10.3.0": "strongly typed networks alone"},
    ),
    "a precision flag": (
        "engine.py", "    known = config.create",
        "    config.set_flag(tensorrt.BuilderFlag.FP16)\n    known = config.create",
        {"11.4.0.106": "has no attribute 'FP16'"},
    ),
    "an enumeration as an int": (
        "engine.py", "1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)",
        "1 << tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED", {"10.3.0": "unsupported operand"},
    ),
    "a property as a method": (
        "tensorrt_runtime.py", "self._engine.num_io_tensors", "self._engine.num_io_tensors()",
        {"10.3.0": "not callable"},
    ),
    "the call of TensorRT 8": (
        "tensorrt_runtime.py", "context.execute_async_v3(self._cuda.stream)",
        "context.execute_async_v2([], self._cuda.stream)", {"10.3.0": "no attribute 'execute_async_v2'"},
    ),
    "another keyword": (
        "engine.py", "config.set_timing_cache(known, False)", "config.set_timing_cache(known, ignore=False)",
        {"10.3.0": "incompatible function arguments"},
    ),
    "an address that is not set": (
        "tensorrt_runtime.py", "if not context.set_tensor_address(name, buffer.device):", "if False:",
        {"10.3.0": "address of z is not set"},
    ),
    "a host address": (
        "tensorrt_runtime.py", "set_tensor_address(name, buffer.device)", "set_tensor_address(name, buffer.host)",
        {"10.3.0": "an illegal memory access was encountered"},
    ),
    "memory that is too small": (
        "cuda_runtime.py", 'self._handle("cudaMalloc", size)', 'self._handle("cudaMalloc", size - 1)',
        {"10.3.0": "an illegal memory access was encountered"},
    ),
    "memory that was freed": (
        "tensorrt_runtime.py", "        self._context = self._new_context()\n\n    def run",
        "        self._context = self._new_context()\n        self._cuda.free(self._inputs[0])\n\n    def run",
        {"10.3.0": "an illegal memory access was encountered"},
    ),
    "no argtypes": (
        "cuda_runtime.py", "function.argtypes, function.restype = arguments, c_int", "function.restype = c_int",
        {"10.3.0": "argtypes are not set"},
    ),
    "a pointer as an int": (
        "cuda_runtime.py", '"cudaFree": (c_void_p,)', '"cudaFree": (c_int,)', {"10.3.0": "is no void *"},
    ),
    "a copy inside the capture's wait": (
        "tensorrt_runtime.py", "        self._enqueue(self._context)\n        self._graph",
        "        self._enqueue(self._context)\n        self._cuda.wait()\n        self._graph",
        {"10.3.0": "not permitted when stream is capturing"},
    ),
    "events read before they passed": (
        "tensorrt_runtime.py", "        cuda.wait()\n        self._warm = True", "        self._warm = True",
        {"10.3.0": "device not ready"},
    ),
    "a copy the wrong way": (
        "cuda_runtime.py", "TO_DEVICE, FROM_DEVICE = 1, 2", "TO_DEVICE, FROM_DEVICE = 2, 1",
        {"10.3.0": "an illegal memory access was encountered"},
    ),
    "a logger that was not made": (
        "engine.py", "                tensorrt.ILogger.__init__(self)", "                pass",
        {"10.3.0": "must call its __init__"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_the_fake_refuses_wrong_use(tmp_path: Path, name: str) -> None:
    file, right, wrong, sentences = PLANTED[name]
    bundle = write_tanh_bundle(tmp_path)
    path = bundle / "harness" / file
    text = path.read_text()
    assert text.count(right) >= 1
    path.write_text(text.replace(right, wrong))
    rehash(bundle, f"harness/{file}")
    if "__init__" in str(sentences):  # the logger is called only when there is something to log
        (bundle / "model.fake").write_bytes(renamed((bundle / "model.fake").read_bytes()))
        rehash(bundle, "model.fake")
    for release, sentence in sentences.items():
        done = run(bundle, tmp_path / "out", release=release)
        assert done.returncode != 0
        assert re.search(re.escape(sentence), done.stderr), done.stderr
        assert not (tmp_path / "out").exists()


def test_a_graph_replays_what_was_captured_and_nothing_else(tmp_path: Path) -> None:
    """With the copies of the inputs left out of each run, the images are all those of the first one."""
    bundle = write_tanh_bundle(tmp_path)
    path = bundle / "harness" / "tensorrt_runtime.py"
    wrong = "        if not self._warm:\n            self._copy_in()\n        cuda.mark(ready)"
    path.write_text(path.read_text().replace("        self._copy_in()\n        cuda.mark(ready)", wrong))
    rehash(bundle, "harness/tensorrt_runtime.py")
    assert run(bundle, tmp_path / "out").returncode == 0
    assert len(np.unique(read_bench_run(tmp_path / "out").images(), axis=0)) == 1
