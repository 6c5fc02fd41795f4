"""removed.parquet: what was taken out of the dataset for good, as hashes: no name is left."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.shard.tables import read_rows
from flowprep.storage import Place

SCHEMA = pa.schema([("path_sha256", pa.string()), ("key_sha256", pa.string())])


def name_sha256(name: str) -> str:
    """Hex digest of a path or a key."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Removed:
    """(sha256 of a path, sha256 of a key) of each; no key means everything of that path."""

    records: frozenset[tuple[str, str]] = frozenset()

    @cached_property
    def paths(self) -> frozenset[str]:
        """Hashes of paths that something was removed of."""
        return frozenset(path for path, _ in self.records)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Hashes of the keys that were removed one by one."""
        return frozenset(key for _, key in self.records if key)

    def has_path(self, path: str) -> bool:
        """Whether a whole file was removed."""
        return bool(self.records) and (name_sha256(path), "") in self.records

    def has_part(self, path: str) -> bool:
        """Whether anything of a file was removed."""
        return bool(self.records) and name_sha256(path) in self.paths

    def has_key(self, key: str) -> bool:
        return bool(self.keys) and name_sha256(key) in self.keys


def removed_bytes(removed: Removed) -> bytes:
    """removed.parquet; the same records give the same bytes."""
    rows = [dict(zip(SCHEMA.names, record, strict=True)) for record in sorted(removed.records)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def load_removed(path: Place) -> Removed:
    """The table. Raises ValueError when it is damaged or not there."""
    return Removed(frozenset(tuple(row.values()) for row in read_rows(path, SCHEMA)))
