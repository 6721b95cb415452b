"""Core ML for a simulated iPhone, by the evaluator of packages: ARTIFACT 1 N,C,H,W LABELS, as tests/android/child.py.

On stdin an l asks for a load, answered by r; an x and a batch, float32 then int64, for its images, float32 on stdout.
"""

import math
import os
import sys
from pathlib import Path

import numpy as np

from rdd_edge.targets.ios.runner import EvaluatorRunner

artifact, threads, labels = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
shape = tuple(map(int, sys.argv[3].split(",")))
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what libraries print must not mix with the images
runner = EvaluatorRunner(artifact, threads)
while command := sys.stdin.buffer.read(1):
    if command == b"l":
        runner.load()
        out.write(b"r")
    else:
        z = np.frombuffer(sys.stdin.buffer.read(4 * math.prod(shape)), "<f4").reshape(shape)
        label = np.frombuffer(sys.stdin.buffer.read(8 * labels), "<i8") if labels else None
        out.write(runner.sample(z, label).astype("<f4").tobytes())
    out.flush()
