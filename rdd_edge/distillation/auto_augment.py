"""AutoAugment with the policy learned on CIFAR-10 (Cubuk et al. 2018, Table 7), on batches on any device.

Each image draws one of 25 sub-policies; each of its two operations is applied with its own probability. Magnitudes are
tenths of the ranges of Table 6; for a symmetric range each image draws the sign. The operations equal Pillow's
(test_auto_augment.py compares them), on values 0 … 255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import current
from .compute_context import ComputeContext

Step = tuple[str, float, int]  # operation, probability, magnitude 0 … 9

POLICY: tuple[tuple[Step, Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
FILL = 128.0  # of pixels from outside the image: grey, as in cutout


def _affine(x: Tensor, *entries: Tensor | float) -> Tensor:
    """Nearest pixels at matrix · (column, row, 1), measured from the image's corner.

    entries: the 2 x 3 matrix row by row, each a number or a value per image (n,).
    """
    n, channels, height, width = x.shape
    matrix = torch.stack([x.new_zeros(n) + entry for entry in entries], dim=1).view(-1, 2, 3)
    rows, columns = torch.meshgrid(
        torch.arange(height, device=x.device) + 0.5, torch.arange(width, device=x.device) + 0.5, indexing="ij"
    )
    points = torch.stack([columns, rows, torch.ones_like(rows)]).view(3, -1).to(matrix.dtype)
    column, row = (matrix @ points).floor().long().unbind(1)  # (n, H·W) each
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    position = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).unsqueeze(1).expand(-1, channels, -1)
    moved = torch.where(inside.unsqueeze(1), x.flatten(2).gather(2, position), FILL)
    return moved.view(n, channels, height, width)


def _shear_x(x: Tensor, m: Tensor) -> Tensor:
    return _affine(x, 1, m, 0, 0, 1, 0)


def _shear_y(x: Tensor, m: Tensor) -> Tensor:
    return _affine(x, 1, 0, 0, m, 1, 0)


def _translate_x(x: Tensor, m: Tensor) -> Tensor:
    """m: fraction of the width."""
    return _affine(x, 1, 0, (m * x.shape[3]).round(), 0, 1, 0)


def _translate_y(x: Tensor, m: Tensor) -> Tensor:
    """m: fraction of the height."""
    return _affine(x, 1, 0, 0, 0, 1, (m * x.shape[2]).round())


def _rotate(x: Tensor, m: Tensor) -> Tensor:
    """m: degrees, counter-clockwise about the centre."""
    angle = -m * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    column, row = x.shape[3] / 2, x.shape[2] / 2
    across, down = column - cos * column - sin * row, row + sin * column - cos * row
    return _affine(x, cos, sin, across, -sin, cos, down)


def _grey(x: Tensor) -> Tensor:
    """ITU-R 601-2 luma in Pillow's 16-bit fixed point, (n, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = torch.split(x.double(), 1, dim=1)
    grey: Tensor = (19595 * red + 38470 * green + 7471 * blue + 32768).div(65536).floor().to(x.dtype)
    return grey


def _blend(degenerate: Tensor, x: Tensor, m: Tensor) -> Tensor:
    """Interpolate between the degenerate image (m = 0) and x (m = 1), or extrapolate."""
    return (degenerate + m.view(-1, 1, 1, 1) * (x - degenerate)).clamp(0, 255).floor()


def _color(x: Tensor, m: Tensor) -> Tensor:
    return _blend(_grey(x), x, m)


def _contrast(x: Tensor, m: Tensor) -> Tensor:
    return _blend((_grey(x).mean((1, 2, 3), keepdim=True) + 0.5).floor(), x, m)


def _brightness(x: Tensor, m: Tensor) -> Tensor:
    return _blend(torch.zeros_like(x), x, m)


def _sharpness(x: Tensor, m: Tensor) -> Tensor:
    kernel = x.new_ones(x.shape[1], 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = x.clone()  # Pillow leaves the border unchanged
    smooth[:, :, 1:-1, 1:-1] = (F.conv2d(x, kernel, groups=x.shape[1]) / 13 + 0.5).floor()
    return _blend(smooth, x, m)


def _posterize(x: Tensor, m: Tensor) -> Tensor:
    """m: number of bits kept."""
    step = 2.0 ** (8 - m.round()).view(-1, 1, 1, 1)
    return (x / step).floor() * step


def _solarize(x: Tensor, m: Tensor) -> Tensor:
    """m: values of at least this are inverted."""
    return torch.where(x < m.view(-1, 1, 1, 1), x, 255 - x)


def _invert(x: Tensor, m: Tensor) -> Tensor:
    return 255 - x


def _autocontrast(x: Tensor, m: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, ((x - low) * 255 / (high - low).clamp(min=1)).floor(), x)


def _equalize(x: Tensor, m: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    values = x.long().reshape(n * channels, -1)
    counts = torch.zeros(n * channels, 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    last = counts.gather(1, values.amax(1, keepdim=True))
    step = (height * width - last) // 255  # 0: too few pixels below the last value to spread
    table = (counts.cumsum(1) - counts + step // 2) // step.clamp(min=1)
    spread = table.clamp(max=255).gather(1, values).to(x.dtype).view(x.shape)
    return torch.where((step > 0).view(n, channels, 1, 1), spread, x)


@dataclass(frozen=True)
class Operation:
    """apply: a function of images (n, C, H, W) with values 0 … 255 and the strength m (n,) of each.

    m is `start` + magnitude/9 · `span`; if `signed`, each image draws the sign of the span.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    start: float = 0.0
    span: float = 0.0
    signed: bool = False


OPERATIONS = {
    "shear_x": Operation(_shear_x, 0.0, 0.3, True),
    "shear_y": Operation(_shear_y, 0.0, 0.3, True),
    "translate_x": Operation(_translate_x, 0.0, 150 / 331, True),  # 150 pixels of ImageNet's 331
    "translate_y": Operation(_translate_y, 0.0, 150 / 331, True),
    "rotate": Operation(_rotate, 0.0, 30.0, True),
    "color": Operation(_color, 1.0, 0.9, True),
    "contrast": Operation(_contrast, 1.0, 0.9, True),
    "brightness": Operation(_brightness, 1.0, 0.9, True),
    "sharpness": Operation(_sharpness, 1.0, 0.9, True),
    "posterize": Operation(_posterize, 8.0, -4.0),
    "solarize": Operation(_solarize, 256.0, -256.0),
    "invert": Operation(_invert),
    "autocontrast": Operation(_autocontrast),
    "equalize": Operation(_equalize),
}


def auto_augment(x: Tensor, rng: torch.Generator, context: ComputeContext, batch: int) -> Tensor:
    """This rank's rows x (N, C, H, W), in [-1, 1], of a batch of `batch`, augmented and rounded to 8 bits."""
    local = current().rows(batch)
    chosen = torch.randint(len(POLICY), (batch,), generator=rng)[local].tolist()
    applied, negative = (torch.rand(batch, 2, generator=rng)[local].tolist() for _ in range(2))
    x = ((x + 1) * 127.5).round()
    for turn in range(2):
        rows: dict[str, list[tuple[int, float]]] = {}
        for row, policy in enumerate(chosen):
            name, probability, magnitude = POLICY[policy][turn]
            if applied[row][turn] < probability:
                operation = OPERATIONS[name]
                sign = -1 if operation.signed and negative[row][turn] < 0.5 else 1
                m = operation.start + sign * operation.span * magnitude / 9
                rows.setdefault(name, []).append((row, m))
        entries = [entry for group in rows.values() for entry in group]
        index = context.upload(torch.tensor([row for row, _ in entries], dtype=torch.int64))
        strength = context.upload(torch.tensor([m for _, m in entries], dtype=torch.float64)).to(x.dtype)
        sizes = [len(group) for group in rows.values()]
        for name, at, m in zip(rows, torch.split(index, sizes), torch.split(strength, sizes), strict=True):
            x = x.index_copy(0, at, OPERATIONS[name].apply(x[at], m))
    return x / 127.5 - 1
