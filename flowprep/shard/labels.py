"""A table that gives keys or paths a label: one for training, for one run, and for the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from flowprep.errors import FlowprepError

KEYS = ("key", "path")
HINT = "columns: path or key; label; split (or split1, split2, ... with --split)"


def read_labels(path: Path, hint: str = HINT) -> tuple[Any, str]:
    """(the table, `key` or `path`: what its rows are told apart by).

    Columns of strings: that one, `label`, and those called split*; every key or path once. Raises
    FlowprepError, with `hint` where columns are missing.
    """
    table = _read(path, hint)
    (by,) = [name for name in KEYS if name in table.column_names]
    _check_unique(path, table[by])
    return table, by


def _read(path: Path, hint: str) -> Any:
    """A table of strings."""
    try:
        table = _parsed(path)
        _check_columns(path, table, hint)
        wanted = [n for n in table.column_names if n in (*KEYS, "label") or n.startswith("split")]
        table = table.select(wanted)
        return table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
    except FileNotFoundError:
        raise FlowprepError(f"no such file: {path}", "check the path of the labels") from None
    except (pa.ArrowException, OSError) as error:
        raise FlowprepError(f"{path} does not read: {error}", hint) from error


def _parsed(path: Path) -> Any:
    kind = path.suffix.lower()
    if kind == ".parquet":
        table = pq.read_table(path)
    elif kind == ".jsonl":
        table = pyarrow.json.read_json(path)
    elif kind == ".csv":
        table = _csv(path)
    else:
        raise FlowprepError(f"the table {path} is not usable", "give a .csv, .parquet or .jsonl")
    return table


def _csv(path: Path) -> Any:
    """Every column as text: "01" is a label, not a number."""
    names = pyarrow.csv.open_csv(path).schema.names
    text = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    return pyarrow.csv.read_csv(path, convert_options=text)


def _check_columns(path: Path, table: Any, hint: str) -> None:
    names = table.column_names
    if not (keys := set(KEYS) & set(names)) or "label" not in names:
        lacks = "label" if keys else " or ".join(KEYS)
        raise FlowprepError(f"{path} has no column {lacks}; it has {', '.join(names)}", hint)
    if len(keys) > 1:
        raise FlowprepError(f"{path} has both columns {' and '.join(KEYS)}", "leave one of them")
    if not len(table):
        raise FlowprepError(f"{path} has no row", hint)


def _check_unique(path: Path, column: Any) -> None:
    counts = pc.value_counts(column)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise FlowprepError(
            f"{path} has {twice[0]['values']} more than once", "leave one row for each"
        )
