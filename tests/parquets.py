"""Random photographs as Hugging Face lays CIFAR-10 out in parquet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_parquet(folder: Path, count: int) -> Path:
    """A folder of one file with `count` images of 32 × 32 × 3, their labels counting up to 9 again and again."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = []
    for image in np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    folder.mkdir()
    table = pyarrow.table({"img": cells, "label": [k % 10 for k in range(count)]})
    parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder
