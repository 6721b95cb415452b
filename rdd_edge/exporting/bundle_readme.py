"""README.md of a bundle: one page for who builds an app with it, with code for the target's languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..bundle import Manifest
from .parity import Vectors

README = "README.md"
FIRST = 4  # values of the first parity vector that are shown


def bundle_readme(manifest: Manifest, vectors: Vectors, snippets: Mapping[str, str]) -> str:
    """The page in Markdown.  snippets: code by language, from `Target.snippets`."""
    parts = [*_description(manifest), *_parity(manifest, vectors)]
    for language, code in snippets.items():
        parts += [f"## {language}", f"```{language.lower().replace('c++', 'cpp')}\n{code.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _description(m: Manifest) -> Iterator[str]:
    n, c, h, w = m.input.shape
    yield f"# {m.artifact}: a one-step image generator for {m.target}, {m.precision}"
    yield (
        f"It turns noise into {'an image' if n == 1 else f'{n} images'} of {w} × {h} pixels with "
        f"{'3 channels (RGB)' if c == 3 else f'{c} channel' + 's' * (c > 1)} in one inference."
    )
    yield (
        f"Needs: {m.needs.runtime.name} {m.needs.runtime.least} or later{_below(m.needs.runtime.below)}, backend "
        f"{m.needs.backend}; {m.needs.system.name} {m.needs.system.least} or later; "
        f"{', '.join(m.needs.architectures)}."
    )
    rows = [
        "| | Name | Shape | Type | Values |",
        "|---|---|---|---|---|",
        f"| input | `{m.input.name}` | {_shape(m.input.shape)} | float32 | independent standard normal noise |",
    ]
    if m.label is not None:
        rows.append(
            f"| input | `{m.label.name}` | {_shape(m.label.shape)} | {m.label.dtype} "
            f"| class, 0 … {int(m.label.high or 0)} |"
        )
    rows.append(f"| output | `{m.output.name}` | {_shape(m.output.shape)} | float32 | image, -1 … 1 |")
    yield "\n".join(rows)
    yield (
        "Shapes are (batch, channels, height, width), rows of pixels from the top. A pixel of 8 bits is "
        "floor(127.5 · x + 128), clamped to 0 … 255. Other noise gives another image; equal noise gives the same one."
    )
    if m.class_names is not None:
        yield "Classes: " + ", ".join(f"{i} {name}" for i, name in enumerate(m.class_names)) + "."


def _parity(m: Manifest, vectors: Vectors) -> Iterator[str]:
    z, x = vectors.z[0].ravel(), vectors.x[0]
    label = "" if vectors.label is None else f" and the label {vectors.label[0]} (`parity/label.i64`)"
    figure = (
        f"this artifact had a median PSNR of {m.parity.psnr_db:.1f} dB to it"
        if m.parity.psnr_db is not None
        else f"not measured for this artifact: {m.parity.reason}"
    )
    yield "## Check that your code is right"
    yield (
        f"`parity/z.f32` holds {m.parity.samples} noise samples, little-endian float32, and `parity/x.f32` the images "
        f"that the original network makes of them ({figure}). The first sample is z = {_values(z)} …{label}; its image "
        f"is x = {_values(x.ravel())} …, with mean {float(np.mean(x)):.4f} and standard deviation "
        f"{float(np.std(x)):.4f}."
    )


def _values(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
    return ", ".join(f"{value:.4f}" for value in values[:FIRST])


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _below(version: str | None) -> str:
    return "" if version is None else f", but below {version}"
