"""index.parquet by columns and by rows, for datasets of millions of samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

import pyarrow as pa

from flowprep.shard.index import INDEX_SCHEMA
from flowprep.shard.schema import SampleRow
from flowprep.shard.tables import parquet_file
from flowprep.storage import Place, plain, size_bytes


class Index:
    """index.parquet, of which only what is asked for is read.

    Raises ValueError unless it is our table, OSError where it cannot be read.
    """

    def __init__(self, path: Place) -> None:
        self._path = plain(path)
        try:
            with parquet_file(path) as file:
                self.n_rows: int = file.metadata.num_rows
                schema = file.schema_arrow
        except pa.ArrowException as error:
            raise ValueError(f"{path.name} does not read: {error}") from error
        if self.n_rows > size_bytes(path):  # each row holds a key of its own
            raise ValueError(f"{path.name} claims {self.n_rows} rows")
        if not schema.equals(INDEX_SCHEMA):
            raise ValueError(f"{path.name} is not in the form flowprep writes")

    def column(self, name: str) -> pa.ChunkedArray:
        """All rows of one column; text that repeats is held once."""
        repeats = name in ("shard", "split", "label", "flow_member", "rgb_member")
        try:
            with parquet_file(self._path, read_dictionary=[name] if repeats else None) as file:
                column = file.read(columns=[name]).column(0)
        except pa.ArrowException as error:
            raise ValueError(f"{self._path.name} does not read: {error}") from error
        if column.null_count:
            raise ValueError(f"{self._path.name} has rows without {name}")
        return column

    def table(self, names: Iterable[str], places: Sequence[int]) -> pa.Table:
        """These columns of the rows at these places, one column at a time."""
        wanted = pa.array(places, pa.int64())
        columns = {name: self.column(name).take(wanted) for name in names}
        return pa.table({name: _plain(column) for name, column in columns.items()})

    def rows(self, places: Sequence[int]) -> list[tuple[str, SampleRow]]:
        """(shard, row) of the samples at these places."""
        if not len(places):
            return []
        names = ["shard", *(f.name for f in fields(SampleRow))]
        rows = self.table(names, places).to_pylist()
        return [(row.pop("shard"), SampleRow(**row)) for row in rows]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    is_dictionary = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_dictionary else column
