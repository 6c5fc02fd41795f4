"""Labels and splits from a table beside the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from flowprep.errors import FlowprepError
from train.data.splits import SPLITS

KEYS = ("key", "path")
HINT = "columns: path or key; label; split (or split1, split2, ... with --split)"


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
    table = _read(path)
    by = _key_column(path, table)
    split_column = _split_column(path, table, split)
    _check_unique(path, table[by])
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


def _read(path: Path) -> Any:
    """A table of strings."""
    try:
        table = _parsed(path)
        return table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
    except FileNotFoundError:
        raise FlowprepError(f"no such file: {path}", "check --labels") from None
    except (pa.ArrowException, OSError) as error:
        raise FlowprepError(f"{path} does not read: {error}", HINT) from error


def _parsed(path: Path) -> Any:
    kind = path.suffix.lower()
    if kind == ".parquet":
        table = pq.read_table(path)
    elif kind == ".jsonl":
        table = pyarrow.json.read_json(path)
    elif kind == ".csv":
        table = _csv(path)
    else:
        raise FlowprepError(f"--labels {path} is not usable", "give a .csv, .parquet or .jsonl")
    wanted = [n for n in table.column_names if n in (*KEYS, "label") or n.startswith("split")]
    return table.select(wanted)


def _csv(path: Path) -> Any:
    """Every column as text: "01" is a label, not a number."""
    names = pyarrow.csv.open_csv(path).schema.names
    text = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    return pyarrow.csv.read_csv(path, convert_options=text)


def _key_column(path: Path, table: Any) -> str:
    found = [name for name in KEYS if name in table.column_names]
    if len(found) != 1 or "label" not in table.column_names:
        has = ", ".join(table.column_names) or "none of them"
        raise FlowprepError(f"{path} has not the columns that are needed: {has}", HINT)
    if not len(table):
        raise FlowprepError(f"{path} has no row", HINT)
    return found[0]


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


def _check_unique(path: Path, column: Any) -> None:
    counts = pc.value_counts(column)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise FlowprepError(
            f"{path} has {twice[0]['values']} more than once", "leave one row for each"
        )
