"""Parquet tables of ours, read as what a stranger may have made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.storage import Place, RemotePath, size_bytes


@contextmanager
def parquet_file(place: Place, **options: Any) -> Iterator[pq.ParquetFile]:
    """The file, of which only what is asked for is read. Raises pyarrow's exceptions, OSError."""
    if not isinstance(place, RemotePath):
        with pq.ParquetFile(place, **options) as parquet:
            yield parquet
        return
    with place.open("rb") as file, pq.ParquetFile(file, **options) as parquet:
        yield parquet


def read_rows(path: Place, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a table, as `read_table` reads it."""
    rows: list[dict[str, Any]] = read_table(path, schema).to_pylist()
    return rows


def read_table(path: Place, schema: pa.Schema) -> pa.Table:
    """A table. Raises ValueError unless it has these columns, and a value in each.

    Only a plain file is opened: a pipe would never end. Raises OSError where that does not work.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    try:
        with parquet_file(path) as file:
            if file.metadata.num_rows > size_bytes(path):  # each row holds a key of its own
                raise ValueError(f"{path.name} claims {file.metadata.num_rows} rows")
            table = file.read()
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} does not read: {error}") from error
    if not table.schema.equals(schema) or any(column.null_count for column in table.columns):
        raise ValueError(f"{path.name} is not in the form flowprep writes")
    return table
