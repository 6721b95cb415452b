"""Time of the Fréchet statistics of many images, compared with the extractor's forward pass alone.

    python benchmarks/metrics.py --samples 50000 --architecture cnn

Prints both times and their ratio, by wall clock and by processor time (which other load on the machine hardly changes),
and the peak memory of the whole process.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from rdd_edge.distributed import BLOCK
from rdd_edge.metrics.extractors import FeatureExtractor
from rdd_edge.metrics.frechet import StatisticsAccumulator, frechet_distance
from rdd_edge.metrics.networks import Classifier, ExtractorConfig

WIDTHS = {"cnn": (32, 64), "densenet": (6, 12, 48, 32)}  # the second with growth 32 is DenseNet-201: 1920 features


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--architecture", choices=tuple(WIDTHS), default="cnn")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    widths = WIDTHS[arguments.architecture]
    config = ExtractorConfig(
        name="bench", architecture=arguments.architecture, widths=widths, growth=32, stem=64,
        image_shape=(3, 32, 32), classes=10,
    )  # fmt: skip
    network = Classifier(config).features
    extractor = FeatureExtractor("bench", network, "0" * 64)
    images = np.random.default_rng(0).integers(0, 256, (arguments.samples, 32, 32, 3), dtype=np.uint8)
    accumulator = StatisticsAccumulator()

    @torch.inference_mode()
    def forward(block: NDArray[np.uint8]) -> None:
        for start in range(0, len(block), BLOCK):
            network(torch.from_numpy(block[start : start + BLOCK]).permute(0, 3, 1, 2).float() / 127.5 - 1.0)

    def distance() -> None:
        statistics = accumulator.result()
        frechet_distance(statistics, statistics)

    list(extractor.batches(images[:BLOCK]))  # warm-up
    own, whole = np.zeros(2), np.zeros(2)
    for start in range(0, len(images), 8 * BLOCK):  # in turns, so that other load on the machine affects both
        block = images[start : start + 8 * BLOCK]
        own += timed(partial(forward, block))
        whole += timed(partial(accumulator.add_all, extractor.batches(block)))
    whole += timed(distance)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{len(images)} images of 32 × 32, {arguments.architecture}")
    for name, ours, theirs in zip(("wall", "processor"), whole, own, strict=True):
        print(
            f"{name}: forward {theirs:.1f} s, features, statistics and distance {ours:.1f} s, ratio {ours / theirs:.3f}"
        )
    print(f"peak memory {peak / 2**30:.2f} GiB, of which the images {images.nbytes / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
