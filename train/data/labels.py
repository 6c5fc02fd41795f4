"""Labels and splits from a table beside the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from flowprep.errors import FlowprepError
from flowprep.shard.labels import read_labels
from train.data.splits import SPLITS


@dataclass(frozen=True)
class JoinReport:
    """How samples and rows of a label table met."""

    matched: int
    without_label: int  # samples that no row, or a row without label or split, speaks of
    without_sample: int  # rows that speak of no sample

    def __str__(self) -> str:
        return (
            f"labels: {self.matched:,} samples matched, {self.without_label:,} without a label "
            f"left out, {self.without_sample:,} rows without a sample"
        )


def join_labels(index: Any, path: Path, split: int) -> tuple[Any, JoinReport]:
    """`index` with label and split as the table `path` has them, without samples it leaves out.

    Without a column of splits samples stay in theirs. Raises FlowprepError for a table that cannot
    be read, that names something twice or another split than SPLITS, or that matches nothing.
    """
    table, by = read_labels(path)
    split_column = _split_column(path, table, split)
    row_N = pc.index_in(index[by], value_set=table[by])
    new = index.set_column(
        index.schema.get_field_index("label"), "label", table["label"].take(row_N)
    )
    if split_column:
        at = index.schema.get_field_index("split")
        new = new.set_column(at, "split", table[split_column].take(row_N))
    kept = new.filter(pc.and_(_is_told(new["label"]), _is_told(new["split"])))
    if not len(kept):
        raise FlowprepError(
            f"{path} labels no sample: it has {by} {table[by][0]}, the dataset {index[by][0]}",
            f"write each {by} as the dataset's index has it",
        )
    n_met = pc.count_distinct(row_N).as_py()
    return kept, JoinReport(len(kept), len(index) - len(kept), len(table) - n_met)


def _is_told(column: Any) -> Any:
    return pc.not_equal(pc.fill_null(column, ""), "")


def _split_column(path: Path, table: Any, split: int) -> str:
    """The column of splits to take, "" where the table has none and none is asked for."""
    name = f"split{split}" if split else "split"
    there = [n for n in table.column_names if n.startswith("split")]
    if name not in there:
        if split or there:
            raise FlowprepError(
                f"{path} has no column {name}", f"its splits: {', '.join(there) or 'none'}"
            )
        return ""
    told = set(pc.unique(pc.fill_null(table[name], "")).to_pylist()) - {""}
    if odd := sorted(told - set(SPLITS)):
        raise FlowprepError(
            f"{path}: {name} {odd[0]!r} is not known",
            f"allowed: {', '.join(SPLITS)}, or nothing for what this split does not use",
        )
    return name
