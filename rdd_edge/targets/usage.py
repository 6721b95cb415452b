"""What the Python snippets of several targets have in common."""

from __future__ import annotations

from ..bundle import Manifest


def python_check(manifest: Manifest, imports: str, run: str) -> str:
    """A script that runs the bundle's first parity vector, prints its PSNR, and keeps its image as 8 bits.

    imports, run: the lines that load the artifact, and those that set `x` from `z` and, if conditional, `label`.
    """
    n, c, h, w = manifest.input.shape
    label = ""
    if manifest.label is not None:
        label = f'label = np.fromfile("parity/label.i64", "<i8", count={n}).astype(np.{manifest.label.dtype})\n'
    return f"""# Run it in the bundle's folder.
import numpy as np
{imports}
shape = ({n}, {c}, {h}, {w})
z = np.fromfile("parity/z.f32", "<f4", count={n * c * h * w}).reshape(shape)
{label}{run}
expected = np.fromfile("parity/x.f32", "<f4", count={n * c * h * w}).reshape(shape)
print("PSNR", 10 * np.log10(4 / max(np.mean((x - expected) ** 2), 1e-20)), "dB")

pixels = np.clip(np.floor(127.5 * x + 128), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)  # (batch, height, width, c)
new_noise = np.random.default_rng().standard_normal(shape, dtype=np.float32)  # for the next image"""
