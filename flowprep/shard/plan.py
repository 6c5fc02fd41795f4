"""plan.parquet: which clip goes to which shard."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowprep.records import I64, KEY, SHARD, SPLIT, check_names
from flowprep.shard.tables import read_table
from flowprep.storage import Place


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A planned clip. Rows of a shard are in the order of its samples."""

    shard: str
    key: str
    path: str
    split: str
    label: str
    n_frames: int


SCHEMA = pa.schema(
    [(f.name, pa.int64() if f.type == "int" else pa.string()) for f in fields(PlanRow)]
)


@dataclass(frozen=True)
class Plan:
    """All planned clips, as columns; a PlanRow is made when it is asked for."""

    table: pa.Table

    @classmethod
    def of(cls, rows: Sequence[PlanRow]) -> Plan:
        columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
        return cls(pa.table(columns, schema=SCHEMA))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[PlanRow]:
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from (PlanRow(**row) for row in batch.to_pylist())

    @cached_property
    def shards(self) -> list[str]:
        """Names, in the order of the rows."""
        names: list[str] = self._shards.dictionary.to_pylist()
        return names

    @cached_property
    def shard_numbers(self) -> I64:
        """Of each row the place of its shard in `shards`."""
        return np.asarray(self._shards.indices, np.int64)

    @cached_property
    def n_frames(self) -> I64:
        """Of each row."""
        return np.asarray(self.table["n_frames"].combine_chunks(), np.int64)

    @cached_property
    def _shards(self) -> pa.DictionaryArray:
        return self.table["shard"].combine_chunks().dictionary_encode()

    @cached_property
    def _places(self) -> dict[str, I64]:
        """Where the rows of each shard are."""
        order = np.argsort(self.shard_numbers, kind="stable")
        stops = np.cumsum(np.bincount(self.shard_numbers, minlength=len(self.shards)))
        return dict(zip(self.shards, np.split(order, stops[:-1]), strict=True))

    def places(self, shard: str) -> I64:
        """Of the rows of a shard."""
        return self._places[shard]

    def rows(self, places: I64) -> list[PlanRow]:
        return [PlanRow(**row) for row in self.table.take(places).to_pylist()]


def plan_bytes(plan: Iterable[PlanRow]) -> bytes:
    """plan.parquet; the same rows give the same bytes."""
    known = plan if isinstance(plan, Plan) else Plan.of(list(plan))
    sink = io.BytesIO()
    pq.write_table(known.table.combine_chunks(), sink, compression="zstd")
    return sink.getvalue()


def read_plan(path: Place) -> Plan:
    """plan.parquet, without a row when there is none. Raises ValueError when it is damaged."""
    if not path.exists():
        return Plan(SCHEMA.empty_table())
    plan = Plan(read_table(path, SCHEMA))
    if not _are_ours(plan):
        for row in plan:
            check_names(shard=row.shard, key=row.key, split=row.split)
    return plan


def _are_ours(plan: Plan) -> bool:
    names = {SHARD: pa.array(plan.shards, pa.string()), KEY: plan.table["key"]}
    names[SPLIT] = plan.table["split"].unique()
    return all(
        pc.all(pc.match_substring_regex(some, rf"\A(?:{kind.pattern})\z"), min_count=0).as_py()
        for kind, some in names.items()
    )


def load_plan(path: Place) -> list[PlanRow]:
    """The rows of plan.parquet. Raises ValueError when it is damaged."""
    return list(read_plan(path))
