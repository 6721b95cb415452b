"""ExecuTorch for the simulated phone: ARTIFACT THREADS N,C,H,W; a batch of float32 on stdin, its images on stdout."""

import math
import os
import sys
from pathlib import Path

import numpy as np

from rdd_edge.targets.android.runner import ExecuTorchRunner

artifact, threads, shape = Path(sys.argv[1]), int(sys.argv[2]), tuple(map(int, sys.argv[3].split(",")))
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what native code prints must not mix with the images
runner = ExecuTorchRunner(artifact, threads)
runner.load()
out.write(b"r")
out.flush()
while len(z := sys.stdin.buffer.read(4 * math.prod(shape))) == 4 * math.prod(shape):
    out.write(runner.run(np.frombuffer(z, "<f4").reshape(shape), None).astype("<f4").tobytes())
    out.flush()
