"""A dataset as a report reads it: the index by columns, and small files as whole as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowprep.config import load_toml
from flowprep.errors import FlowprepError
from flowprep.shard.columns import Index
from flowprep.shard.index import FAILURES_SCHEMA, load_dataset
from flowprep.shard.layout import Layout, layout_of
from flowprep.shard.runs import Run, load_runs
from flowprep.shard.tables import parquet_file
from flowprep.storage import Place, exists, oddity, plain, sha256_file

EXAMPLES = 5
"""So many failed clips of each reason are named."""


def require_outside(out: Path, layout: Layout) -> None:
    """Raise FlowprepError when a picture would become a file that verify does not know."""
    if layout.holds(out):
        raise FlowprepError(
            f"--out {out} lies in the dataset, where flowprep verify would report it",
            "give another place",
        )
    if not out.resolve().parent.is_dir():
        raise FlowprepError(f"--out {out}: there is no folder {out.parent}", "make it first")


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The clips that failed for one reason; (path, message) of some."""

    reason: str
    count: int
    retriable: int
    stages: dict[str, int]
    examples: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """`doubts` says what of it is not as it should be."""

    layout: Layout
    index: Index
    planned: int | None  # clips; None when there is no plan to read
    tar_bytes: int | None  # None until the dataset is finished
    class_names: list[str]
    failed: list[Failed]  # the most frequent reason first
    runs: list[Run]
    damaged_runs: int
    config: dict[str, Any]
    doubts: list[str] = field(default_factory=list)

    @property
    def n_failures(self) -> int:
        return sum(one.count for one in self.failed)


def open_index(out: Place) -> tuple[Layout, Index]:
    """Raises FlowprepError when there is no dataset, or its index does not read."""
    layout = layout_of(out)
    if oddity(layout.index) == "is missing":
        raise FlowprepError(
            f"{out}: there is no index yet", "run flowprep extract again: it ends with the index"
        )
    with _repairable(out):
        return layout, Index(layout.index)


@contextmanager
def _repairable(out: Place) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise FlowprepError(f"{out}: {error}", "flowprep verify --repair makes it again") from error


def open_dataset(out: Place) -> Dataset:
    """Raises FlowprepError when there is no dataset, or none whose index and failures read."""
    layout, index = open_index(out)
    with _repairable(out):
        failed = load_failed(layout.failures)
    stated, doubts = _stated(layout)
    runs, damaged_runs = load_runs(layout.runs)
    return Dataset(
        layout=layout,
        index=index,
        planned=_planned(layout),
        tar_bytes=stated.get("bytes"),
        class_names=_class_names(layout),
        failed=failed,
        runs=runs,
        damaged_runs=damaged_runs,
        config=_config(layout),
        doubts=doubts,
    )


def _stated(layout: Layout) -> tuple[dict[str, Any], list[str]]:
    """(dataset.json, what speaks against the numbers of a report)."""
    try:
        stated = load_dataset(plain(layout.dataset))
    except ValueError as error:
        unfinished = oddity(layout.dataset) == "is missing"
        told = (
            "It is not finished: run the command again that wrote it." if unfinished else str(error)
        )
        return {}, [told]
    pending = "A relabel or remove is not finished: run flowprep verify --repair."
    interrupted = [pending] if exists(layout.pending) else []
    altered = [
        f"{path.name} is not what dataset.json vouches for: run flowprep verify."
        for path in (layout.index, layout.failures)
        if stated["files"].get(path.name) != sha256_file(path)
    ]
    return stated, [*interrupted, *altered]


def load_failed(path: Place) -> list[Failed]:
    """failures.parquet by reason. Raises ValueError unless it is our table."""
    table = failures_table(path)
    reasons = Counter(dict(_counted(table["reason"])))
    return [
        _failed(reason, table.filter(pc.equal(table["reason"], reason)))
        for reason, _ in reasons.most_common()
    ]


def failures_table(path: Place) -> pa.Table:
    """failures.parquet. Raises ValueError unless it is our table."""
    try:
        with parquet_file(plain(path)) as file:
            table = file.read()
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} does not read: {error}") from error
    if not table.schema.equals(FAILURES_SCHEMA) or any(c.null_count for c in table.columns):
        raise ValueError(f"{path.name} is not in the form flowprep writes")
    return table


def _failed(reason: str, table: pa.Table) -> Failed:
    some = table.slice(0, EXAMPLES)
    return Failed(
        reason=reason,
        count=table.num_rows,
        retriable=int(pc.sum(table["retriable"]).as_py() or 0),
        stages=dict(_counted(table["stage"])),
        examples=list(zip(some["path"].to_pylist(), some["message"].to_pylist(), strict=True)),
    )


def _counted(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    return [(one["values"], one["counts"]) for one in pc.value_counts(column).to_pylist()]


def _planned(layout: Layout) -> int | None:
    try:
        with parquet_file(plain(layout.plan)) as file:
            return int(file.metadata.num_rows)
    except (ValueError, OSError, pa.ArrowException):
        return None


def _class_names(layout: Layout) -> list[str]:
    try:
        return plain(layout.classes).read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError):
        return []


def _config(layout: Layout) -> dict[str, Any]:
    """Settings and versions, {} when they do not read."""
    try:
        return load_toml(plain(layout.config))
    except (FlowprepError, ValueError, OSError):
        return {}
