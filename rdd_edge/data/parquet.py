"""Hugging Face's parquet layout: a column of encoded images (img or image) and, where there are labels, label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..dependencies import import_or_explain
from ..errors import DataError
from ..files import corrupt_errors
from .decode import Batch, Encoded, Source, decode_all

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels")
ROWS = 512


def parquet_source(path: Path) -> Source | None:
    """The table at `path`, or those in the folder and its folders; None where it has none.

    Only the training split, where file names tell it from others.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")])
    files = [file for file in files if file.name.startswith("train")] or files
    if not files:
        return None
    columns = [_columns(file) for file in files]
    if len(set(columns)) > 1:
        raise DataError(f"{files[0]} and {files[-1]} have different columns or classes: give one data set at a time")
    image, label, classes = columns[0]

    def batches(image_size: int | None) -> Iterator[Batch]:
        return decode_all((item for file in files for item in _rows(file, image, label)), image_size)

    return Source(path.stem if path.is_file() else path.resolve().name, path, tuple(files), batches, classes)


def _columns(path: Path) -> tuple[str, str | None, tuple[str, ...] | None]:
    """Names of the image column, the label column and, where the metadata has them, the classes."""
    with _opened(path) as table:
        schema = table.schema_arrow
        image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
        if image is None:
            raise DataError(f"{path} has no column img or image: its columns are {', '.join(schema.names)}")
        label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        return image, label, _class_names((schema.metadata or {}).get(b"huggingface"), label)


def _class_names(metadata: bytes | None, label: str | None) -> tuple[str, ...] | None:
    try:
        names = json.loads(metadata or b"")["info"]["features"][label]["names"]
        return tuple(str(name) for name in names)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # the metadata does not name the classes


def _rows(path: Path, image: str, label: str | None) -> Iterator[Encoded]:
    with _opened(path) as table:
        row = 0
        for batch in table.iter_batches(ROWS, columns=[name for name in (image, label) if name]):
            labels = batch.column(label).to_pylist() if label else [None] * len(batch)
            for cell, value in zip(batch.column(image).to_pylist(), labels, strict=True):
                where = f"{path}, row {row}"
                if label and not isinstance(value, int):
                    raise DataError(f"{where}: its {label} is {value!r}, not the number of a class")
                content = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(content, bytes):
                    raise DataError(f"{where}: its {image} is not an encoded image")
                yield Encoded(where, content, value)
                row += 1


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    parquet = import_or_explain("pyarrow.parquet", f"reading {path}", "cifar")
    with corrupt_errors(f"{path} is not a readable parquet file"), parquet.ParquetFile(path) as table:
        yield table
