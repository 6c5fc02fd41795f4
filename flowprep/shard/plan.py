"""plan.parquet: which clip goes to which shard."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.records import check_names
from flowprep.shard.tables import read_rows
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


def plan_bytes(rows: list[PlanRow]) -> bytes:
    """plan.parquet; the same rows give the same bytes."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def load_plan(path: Place) -> list[PlanRow]:
    """The rows of plan.parquet, [] when there is none. Raises ValueError when it is damaged."""
    if not path.exists():
        return []
    rows = [PlanRow(**row) for row in read_rows(path, SCHEMA)]
    for row in rows:
        check_names(shard=row.shard, key=row.key, split=row.split)
    return rows
