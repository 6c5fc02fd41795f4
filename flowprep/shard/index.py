"""Commit marks, the index built from them, DALI's .idx, and dataset.json."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.config import SCHEMA_VERSION
from flowprep.records import Failure, check_names
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleRow, typed
from flowprep.shard.tables import parquet_file, read_rows
from flowprep.storage import Place, sha256_file

MEMBERS = ("cls", "flow", "json", "rgb")
_ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Proof that a shard is finished. When every clip failed there is no tar: `tar_bytes` 0."""

    shard: str
    fingerprint: str
    tar_bytes: int
    tar_sha256: str
    idx_sha256: str
    samples: list[SampleRow]
    failures: list[Failure]
    versions: dict[str, str]
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def n_planned(self) -> int:
        return len(self.samples) + len(self.failures)

    def to_json(self) -> bytes:
        return canonical(asdict(self))


def canonical(value: Any) -> bytes:
    """The one JSON form of a value."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def load_mark(path: Place) -> Mark:
    """A commit mark. Raises ValueError unless it is exactly what `Mark.to_json` writes."""
    data = path.read_bytes()
    try:
        values = json.loads(data)
        values["samples"] = [typed(SampleRow, row) for row in values["samples"]]
        values["failures"] = [typed(Failure, row) for row in values["failures"]]
        mark = typed(Mark, values)
        for row in mark.samples:
            check_names(shard=mark.shard, key=row.key, split=row.split)
        _check_places(mark)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a commit mark: {error}") from error
    if mark.to_json() != data:
        raise ValueError("not in the form flowprep writes")
    return mark


def _check_places(mark: Mark) -> None:
    """Raise ValueError unless the samples lie one behind the other inside the tar."""
    end = 0
    for row in mark.samples:
        if row.sample_offset != end or row.sample_size <= 0:
            raise ValueError(f"sample {row.key} does not lie behind the one before it")
        end += row.sample_size
        for kind in MEMBERS:
            offset, size = getattr(row, f"{kind}_offset"), getattr(row, f"{kind}_size")
            absent = kind == "cls" and (offset, size) == (-1, 0)
            if not absent and not (row.sample_offset <= offset <= offset + size <= end):
                raise ValueError(f"{kind} of sample {row.key} lies outside of it")
    if end > mark.tar_bytes:
        raise ValueError("the samples are longer than the tar")


def dali_idx(samples: Iterable[SampleRow]) -> bytes:
    """DALI's index of a tar (wds2idx v1.2): `ext offset size name` for each member of a sample."""
    rows = list(samples)
    lines = [f"v1.2 {len(rows)}"]
    for row in rows:
        members = [
            ("cls", "cls"),
            ("flow", row.flow_member),
            ("json", "json"),
            ("rgb", row.rgb_member),
        ]
        lines.append(
            " ".join(
                f"{suffix} {getattr(row, f'{kind}_offset')} {getattr(row, f'{kind}_size')} "
                f"{row.key}.{suffix}"
                for kind, suffix in members
                if getattr(row, f"{kind}_offset") >= 0
            )
        )
    return ("\n".join(lines) + "\n").encode("ascii")


def _schema(kind: type, *extra: str) -> pa.Schema:
    names = [(name, pa.string()) for name in extra]
    return pa.schema([*names, *((f.name, _ARROW[str(f.type)]) for f in fields(kind))])


INDEX_SCHEMA = _schema(SampleRow, "shard")
FAILURES_SCHEMA = _schema(Failure, "shard")


def index_bytes(marks: Iterable[Mark]) -> bytes:
    """index.parquet: a row per sample, in the order of shards and of samples in them."""
    rows = [{"shard": m.shard, **asdict(row)} for m in marks for row in m.samples]
    return _parquet(rows, INDEX_SCHEMA)


def failures_bytes(marks: Iterable[Mark]) -> bytes:
    """failures.parquet: a row per failed clip."""
    rows = [{"shard": m.shard, **asdict(failure)} for m in marks for failure in m.failures]
    return _parquet(rows, FAILURES_SCHEMA)


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def load_index(path: Place) -> list[tuple[str, SampleRow]]:
    """(shard, row) of every sample in index.parquet. Raises ValueError unless it is our table."""
    return [(row.pop("shard"), SampleRow(**row)) for row in read_rows(path, INDEX_SCHEMA)]


def load_failures(path: Place) -> list[tuple[str, Failure]]:
    """(shard, failure) of every clip in failures.parquet."""
    with parquet_file(path) as file:
        return [(row.pop("shard"), Failure(**row)) for row in file.read().to_pylist()]


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """What dataset.json holds beside its own hash."""

    schema_version: int
    fingerprint: str
    planned: int
    samples: int
    failures: int
    frames: int
    flows: int
    bytes: int
    classes: list[str]
    files: dict[str, str]
    shards: dict[str, str]


def dataset_bytes(layout: Layout, marks: list[Mark], fingerprint: str) -> bytes:
    """dataset.json: totals, the classes, the hash of every other file, and of itself."""
    body = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "planned": sum(m.n_planned for m in marks),
        "samples": sum(len(m.samples) for m in marks),
        "failures": sum(len(m.failures) for m in marks),
        "frames": sum(row.n_frames for m in marks for row in m.samples),
        "flows": sum(row.n_flows for m in marks for row in m.samples),
        "bytes": sum(m.tar_bytes for m in marks),
        "classes": layout.classes.read_bytes().decode(errors="replace").splitlines(),
        "files": {path.name: sha256_file(path) for path in layout.tables},
        "shards": {m.shard: hashlib.sha256(m.to_json()).hexdigest() for m in marks},
    }
    return canonical(body | {"sha256": hashlib.sha256(canonical(body)).hexdigest()})


def load_dataset(path: Place) -> dict[str, Any]:
    """dataset.json. Raises ValueError when it was altered in any byte."""
    data = path.read_bytes()
    try:
        body = json.loads(data)
        claimed = body.pop("sha256")
        typed(_Dataset, body)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"not a dataset.json: {error}") from error
    same_form = canonical(body | {"sha256": claimed}) == data
    if not same_form or hashlib.sha256(canonical(body)).hexdigest() != claimed:
        raise ValueError("its own hash does not match")
    return body
