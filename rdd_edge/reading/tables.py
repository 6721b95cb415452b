"""Parquet tables, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..dependencies import import_or_explain
from ..errors import CorruptError, first_line
from .archives import FREE_BYTES, MOST_RATIO

ROWS = 64  # at a time, or fewer of columns of over BATCH_BYTES: a page may refer to one value many times
BATCH_BYTES = 1 << 26
BUFFER_BYTES = 1 << 20  # of a column, which is otherwise read as a whole


def table_columns(path: Path) -> tuple[list[str], dict[bytes, bytes]]:
    """Names of the columns, and the metadata of the schema. Raises CorruptError, DependencyError."""
    with _opened(path) as table:
        return list(table.schema_arrow.names), dict(table.schema_arrow.metadata or {})


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The values of these columns, row by row, as Python's. Raises CorruptError, DependencyError."""
    with _opened(path) as table:
        count = max(1, min(ROWS, BATCH_BYTES // max([1, *(unpacked for unpacked, _ in _sizes(table))])))
        batches = table.iter_batches(count, columns=list(columns), use_threads=False)
        while (rows := _next(batches, columns, path)) is not None:
            yield from rows


def _opened(path: Path) -> Any:
    parquet = import_or_explain("pyarrow.parquet", f"reading {path}", "cifar")
    try:
        table = parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
        names, sizes = table.schema_arrow.names, _sizes(table)
    except Exception as error:  # pyarrow alone runs here, and raises many types for a broken file
        raise CorruptError(f"{path} is not a readable parquet file: {first_line(error)}") from None
    if len(names) != len(set(names)):
        raise CorruptError(f"{path} has two columns of one name")
    if any(unpacked > FREE_BYTES and unpacked > MOST_RATIO * packed for unpacked, packed in sizes):
        raise CorruptError(f"{path} unpacks to more than {MOST_RATIO} times its size, which no images do")
    return table


def _sizes(table: Any) -> list[tuple[int, int]]:
    """Unpacked and packed bytes of each column in each group of rows, as the file declares them."""
    groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return [(column.total_uncompressed_size, column.total_compressed_size) for column in columns]


def _next(batches: Iterator[Any], columns: Sequence[str], path: Path) -> list[tuple[Any, ...]] | None:
    try:
        if (batch := next(batches, None)) is None:
            return None
        return list(zip(*(batch.column(name).to_pylist() for name in columns), strict=True))
    except Exception as error:  # as above
        raise CorruptError(f"{path} is not a readable parquet file: {first_line(error)}") from None
