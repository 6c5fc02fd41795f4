"""Commit marks, the index built from them, DALI's .idx, and dataset.json."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache
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
        samples, failures = list(map(vars, self.samples)), list(map(vars, self.failures))
        return canonical(vars(self) | {"samples": samples, "failures": failures})


def canonical(value: Any) -> bytes:
    """The one JSON form of a value: what `json.dumps` gives with an indent of 1 and sorted keys."""
    return (_indented(value, 1) + "\n").encode()


def _indented(value: Any, depth: int) -> str:
    """As `json` would, whose own code for indents takes five times as long."""
    inside = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    line, end = "\n" + " " * depth, "\n" + " " * (depth - 1)
    if not any(isinstance(one, dict | list) for one in inside):
        text = _encoder(depth).encode(value)
        return text[0] + line + text[1:-1] + end + text[-1]
    if isinstance(value, list):
        items = [_indented(one, depth + 1) for one in value]
        return f"[{line}{f',{line}'.join(items)}{end}]"
    names = {name: json.dumps(name, ensure_ascii=False) for name in sorted(value)}
    items = [f"{names[name]}: {_indented(value[name], depth + 1)}" for name in names]
    return f"{{{line}{f',{line}'.join(items)}{end}}}"


@cache
def _encoder(depth: int) -> json.JSONEncoder:
    separators = (",\n" + " " * depth, ": ")
    return json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=separators)


def load_mark(path: Place) -> Mark:
    """A commit mark. Raises ValueError unless it is exactly what `Mark.to_json` writes."""
    return parse_mark(path.read_bytes())


def parse_mark(data: bytes) -> Mark:
    """The same, of what the file holds."""
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


def parse_failed(data: bytes) -> list[Failure]:
    """The failures of a commit mark, which begins with them; its samples are not looked at.

    Raises ValueError where that is not how it begins.
    """
    head = '{\n "failures": '
    try:
        text = data.decode()
        if not text.startswith(head):
            raise ValueError("it begins otherwise")
        rows, _ = json.JSONDecoder().raw_decode(text, len(head))
        return [typed(Failure, row) for row in rows]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not a commit mark: {error}") from error


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


AT_A_TIME = 1 << 14
"""Rows in a row group of these tables, and rows that are held at a time."""


class _Table:
    """A parquet table that is written while its rows come in."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._sink, self._rows = schema, io.BytesIO(), list[dict[str, Any]]()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._is_empty = True

    def add(self, shard: str, rows: Iterable[SampleRow | Failure]) -> None:
        for row in rows:
            self._rows.append({"shard": shard, **vars(row)})
            if len(self._rows) == AT_A_TIME:
                self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._is_empty = [], False

    def to_bytes(self) -> bytes:
        if self._rows or self._is_empty:
            self._flush()
        self._writer.close()
        return self._sink.getvalue()


@dataclass(kw_only=True)
class Gathered:
    """What the commit marks of a dataset tell: its tables, and its totals."""

    index: bytes = b""  # index.parquet: a row per sample, in the order of shards and in them
    failures: bytes = b""  # failures.parquet: a row per failed clip
    failed: list[Failure] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)  # name -> hash of its mark
    n_samples: int = 0
    n_frames: int = 0
    n_flows: int = 0
    tar_bytes: int = 0

    def add(self, mark: Mark) -> None:
        self.failed += mark.failures
        self.shards[mark.shard] = hashlib.sha256(mark.to_json()).hexdigest()
        self.n_samples += len(mark.samples)
        self.n_frames += sum(row.n_frames for row in mark.samples)
        self.n_flows += sum(row.n_flows for row in mark.samples)
        self.tar_bytes += mark.tar_bytes


def gather(marks: Iterable[Mark]) -> Gathered:
    """Go through the marks once; none is held."""
    found, index, failures = Gathered(), _Table(INDEX_SCHEMA), _Table(FAILURES_SCHEMA)
    for mark in marks:
        found.add(mark)
        index.add(mark.shard, mark.samples)
        failures.add(mark.shard, mark.failures)
    found.index, found.failures = index.to_bytes(), failures.to_bytes()
    return found


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


def dataset_bytes(layout: Layout, found: Gathered, fingerprint: str) -> bytes:
    """dataset.json: totals, the classes, the hash of every other file, and of itself."""
    body = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "planned": found.n_samples + len(found.failed),
        "samples": found.n_samples,
        "failures": len(found.failed),
        "frames": found.n_frames,
        "flows": found.n_flows,
        "bytes": found.tar_bytes,
        "classes": layout.classes.read_bytes().decode(errors="replace").splitlines(),
        "files": {path.name: sha256_file(path) for path in layout.tables},
        "shards": found.shards,
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
