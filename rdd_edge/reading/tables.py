"""Parquet tables, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..dependencies import import_or_explain
from ..errors import CorruptError, first_line
from .archives import FREE_BYTES, MOST_RATIO

ROWS = 64  # at a time, or fewer where a group has over BATCH_BYTES: a page may refer to one value many times
BATCH_BYTES = 1 << 26
BUFFER_BYTES = 1 << 20  # of a column, which is otherwise read as a whole


def table_columns(path: Path) -> tuple[list[str], dict[bytes, bytes]]:
    """Names of the columns, and the metadata of the schema. Raises CorruptError, DependencyError."""
    with _opened(path) as table:
        return list(table.schema_arrow.names), dict(table.schema_arrow.metadata or {})


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The values of these columns, row by row, as Python's. Raises CorruptError, DependencyError."""
    with _opened(path) as table:
        count = max(1, min(ROWS, BATCH_BYTES // max([1, *_sizes(table)])))
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
    if (unpacked := sum(sizes)) > FREE_BYTES and unpacked > MOST_RATIO * path.stat().st_size:
        raise CorruptError(f"{path} unpacks to more than {MOST_RATIO} times its size, which no images do")
    return table


def _sizes(table: Any) -> list[int]:
    """Unpacked bytes of each group of rows, as the file declares them.

    Those of each column cannot be asked for: pyarrow ends the process where the footer says what no column can have.
    """
    return [table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups)]


def _next(batches: Iterator[Any], columns: Sequence[str], path: Path) -> list[tuple[Any, ...]] | None:
    try:
        if (batch := next(batches, None)) is None:
            return None
        return list(zip(*(batch.column(name).to_pylist() for name in columns), strict=True))
    except Exception as error:  # as above
        raise CorruptError(f"{path} is not a readable parquet file: {first_line(error)}") from None
