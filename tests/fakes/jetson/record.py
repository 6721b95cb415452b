"""Write down what the bindings of a TensorRT release and the header of a CUDA runtime say of themselves.

    pip download --no-deps tensorrt-cu12-bindings==10.3.0 nvidia-cuda-runtime-cu12==12.6.77 …
    python record.py WHEEL…

The wheels hold NVIDIA's own compiled bindings (python/src/infer/pyCore.cpp and python/src/parsers/pyOnnx.cpp of that
release), which carry every signature, enumeration and property; libnvinfer, which they are linked to, is replaced by a
library that does nothing, since nothing is called. Needs the Python that the wheel is for, and a C compiler.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
CLASSES = (
    "Builder", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory", "ILogger",
    "INetworkDefinition", "IProfiler", "ITimingCache", "OnnxParser", "ParserError", "Runtime",
)  # fmt: skip
ENUMS = (
    "BuilderFlag", "DataType", "LayerInformationFormat", "NetworkDefinitionCreationFlag", "ProfilingVerbosity",
    "TensorIOMode",
)  # fmt: skip
ENTRIES = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def main() -> None:
    for wheel in map(Path, sys.argv[1:]):
        name, version = wheel.name.split("-")[:2]
        with tempfile.TemporaryDirectory() as folder:
            zipfile.ZipFile(wheel).extractall(folder)
            if name.startswith("tensorrt"):
                kind, found = "tensorrt", bindings(Path(folder), version)
            else:
                kind, found = "cudart", prototypes(next(Path(folder).rglob("cuda_runtime_api.h")))
        source = {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), "version": version}
        text = json.dumps({"source": source, **found}, indent=1, sort_keys=True)
        (RECORDED / f"{kind}-{version}.json").write_text(text + "\n")


def bindings(folder: Path, version: str) -> dict[str, Any]:
    """Loaded in a process of its own, beside libraries of the names that they want."""
    major = version.split(".")[0]
    code = "\n".join(f"void* {entry}(void) {{ return 0; }}" for entry in ENTRIES)
    (folder / "nothing.c").write_text(code)
    for name in LIBRARIES:
        library = f"lib{name}.so.{major}"
        command = ["cc", "-shared", "-fPIC", "-o", str(folder / library), f"-Wl,-soname,{library}", "nothing.c"]
        subprocess.run(command, cwd=folder, check=True)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": str(next(folder.rglob("tensorrt.so")).parent),
    }
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--describe"], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def describe() -> dict[str, Any]:
    import tensorrt

    assert Path(tensorrt.__file__).suffix == ".so"
    return {
        "classes": {name: described(getattr(tensorrt, name)) for name in CLASSES},
        "enums": {name: members(getattr(tensorrt, name)) for name in ENUMS},
        "severity": members(tensorrt.ILogger.Severity),
    }


def members(kind: Any) -> dict[str, int]:
    return {name: int(value) for name, value in kind.__members__.items()}


def described(kind: Any) -> dict[str, Any]:
    """Methods with the signatures of their overloads, and properties with what may be done to them."""
    methods, properties = {}, {}
    for name in dir(kind):
        member = getattr(kind, name)
        if isinstance(member, property):
            properties[name] = "settable" if member.fset else "readonly"
        elif name == "__init__" or not name.startswith("_"):
            found = re.findall(rf"^(?:\d+\. )?({name}\(self.*)$", member.__doc__ or "", re.MULTILINE)
            if found:
                methods[name] = found
    return {"methods": methods, "properties": properties}


def prototypes(header: Path) -> dict[str, Any]:
    """Every exported function of the runtime: its declaration and the line of cuda_runtime_api.h on which it stands."""
    found = {}
    for number, line in enumerate(header.read_text().splitlines(), 1):
        match = re.match(r"extern __host__ .*?(\w[\w ]*[ *]) ?CUDARTAPI (cuda\w+)\((.*)\);", line)
        if match and match[2] not in found:
            arguments = re.sub(r" __dv\(.*?\)", "", match[3])
            found[match[2]] = {"line": number, "arguments": arguments, "returns": match[1].split("__")[-1].strip()}
    return {"functions": found}


if __name__ == "__main__":
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(describe()))
    else:
        main()
