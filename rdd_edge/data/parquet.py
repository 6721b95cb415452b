"""Hugging Face's parquet layout: a column of encoded images (img or image) and, where there are labels, label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import CorruptError, DataError
from ..reading.documents import parse_json
from ..reading.tables import table_columns, table_rows
from .decode import MOST_CLASSES, Batch, Encoded, Source, decode_all

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels")


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
    names, metadata = table_columns(path)
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise DataError(f"{path} has no column img or image: its columns are {', '.join(names)}")
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    return image, label, _class_names(metadata.get(b"huggingface"), label, path)


def _class_names(metadata: bytes | None, label: str | None, path: Path) -> tuple[str, ...] | None:
    found = None if metadata is None else parse_json(metadata, f"the metadata of {path}")
    for key in ("info", "features", label, "names"):
        found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        return None  # the metadata does not name the classes
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise CorruptError(f"the metadata of {path} does not name the classes of {label} by a list of strings")
    return tuple(found)


def _rows(path: Path, image: str, label: str | None) -> Iterator[Encoded]:
    for row, (cell, *labels) in enumerate(table_rows(path, [name for name in (image, label) if name])):
        where, value = f"{path}, row {row}", labels[0] if labels else None
        if label and not (type(value) is int and -MOST_CLASSES < value < MOST_CLASSES):
            raise DataError(f"{where}: its {label} is {str(value)[:40]}, not the number of a class")
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise DataError(f"{where}: its {image} is not an encoded image")
        yield Encoded(where, content, value)
