"""Parquet tables of ours, read as what a stranger may have made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def read_rows(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a table. Raises ValueError unless it has these columns, and a value in each.

    Only a plain file is opened: a pipe would never end. Raises OSError where that does not work.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > path.stat().st_size:  # each row holds a key of its own
            raise ValueError(f"{path.name} claims {file.metadata.num_rows} rows")
        table = file.read()
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} does not read: {error}") from error
    if not table.schema.equals(schema) or any(column.null_count for column in table.columns):
        raise ValueError(f"{path.name} is not in the form flowprep writes")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
