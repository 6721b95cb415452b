"""The runtime of a simulated phone: TARGET ARTIFACT THREADS N,C,H,W LABELS, LABELS the number of labels of a batch.

TARGET is android, for ExecuTorch, or ios, for the evaluator of packages. On stdin an l asks for a load, answered by r;
an x and a batch, float32 then int64, for its images, float32 on stdout.
"""

import importlib
import math
import os
import sys
from pathlib import Path

import numpy as np

RUNNERS = {"android": "ExecuTorchRunner", "ios": "EvaluatorRunner"}

target, artifact, threads, labels = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[5])
shape = tuple(map(int, sys.argv[4].split(",")))
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what libraries and native code print must not mix with the images
runner = getattr(importlib.import_module(f"rdd_edge.targets.{target}.runner"), RUNNERS[target])(artifact, threads)
while command := sys.stdin.buffer.read(1):
    if command == b"l":
        runner.load()
        out.write(b"r")
    else:
        z = np.frombuffer(sys.stdin.buffer.read(4 * math.prod(shape)), "<f4").reshape(shape)
        label = np.frombuffer(sys.stdin.buffer.read(8 * labels), "<i8") if labels else None
        out.write(runner.sample(z, label).astype("<f4").tobytes())
    out.flush()
