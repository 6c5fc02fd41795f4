"""Annotation files as text, lines, tables and JSON; what they say of splits; names of videos."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.storage import VIDEO_SUFFIXES, read_text

SPLITS = {
    "train": ("train", "training", "trainlist"),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test", "testing", "testlist"),
}
SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}


def split_named(text: str) -> str:
    """`training`, `validate` and the like by the name that flowprep has for them."""
    return SPLIT_OF.get(text.strip().lower(), text.strip().lower())


def split_of_file(path: Path) -> str:
    """The split that the name of an annotation file tells, "" when it tells none, or several."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    found = {SPLIT_OF[word] for word in words if word in SPLIT_OF}
    return found.pop() if len(found) == 1 else ""


def existing(place: str, kind: str, folder: bool = False) -> Path:
    """The path of an annotation file, or of a folder of them. Raises FlowprepError."""
    path = Path(place)
    if not path.exists():
        raise FlowprepError(f"--labels {kind}:{place}: no such file or folder", "check the path")
    if path.is_dir() != folder:
        is_what, want = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise FlowprepError(f"--labels {kind}:{place} is {is_what}", f"give {want}")
    return path


def numbered(place: str) -> tuple[str, int]:
    """`splits#2` as folder and number of the split; 1 when none is given."""
    with_number = re.fullmatch(r"(.+)#([0-9]{1,3})", place)
    if with_number and not Path(place).exists():
        return with_number[1], int(with_number[2])
    return place, 1


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file and line, text without white space around it) of each line that is not empty."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path.name}, line {number}", line.strip()


def read_csv(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, column -> text) of each row. Raises FlowprepError where a column lacks."""
    rows = _csv_rows(path)
    _, head = next(rows, ("", []))
    columns = [name.strip().lower() for name in head]
    if lacking := [name for name in needed if name not in columns]:
        raise FlowprepError(
            f"{path.name} has no column {', '.join(lacking)}; its first line: {','.join(head)}",
            f"needed are {', '.join(needed)}, with commas between them",
        )
    for where, row in rows:
        if len(row) > len(columns):
            raise FlowprepError(
                f"{where}: {len(row)} values, the first line names {len(columns)} columns",
                "put a value that has a comma in it in double quotes",
            )
        yield where, dict.fromkeys(columns, "") | dict(zip(columns, row, strict=False))


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    text = io.StringIO(read_text(path), newline="")
    reader = csv.reader(text, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(value.strip() for value in row):
                yield f"{path.name}, line {reader.line_num}", [value.strip() for value in row]
    except csv.Error as error:
        raise FlowprepError(
            f"{path.name}, line {reader.line_num}: {error}", "mend the line"
        ) from error


def read_json(path: Path) -> Any:
    """Raises FlowprepError with the line when it is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise FlowprepError(
            f"{path.name}, line {error.lineno}: not JSON: {error.msg}", "get the file again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FlowprepError(f"{path.name}: not JSON: {error}", "get the file again") from error


def bare(path: str) -> str:
    """The name of a video file without its suffix, or suffixes: downloads are called a.mp4.webm."""
    name = path.rpartition("/")[2]
    while True:
        stem, _, suffix = name.rpartition(".")
        if not stem or f".{suffix.lower()}" not in VIDEO_SUFFIXES:
            return name
        name = stem


def with_folder(path: str) -> str:
    """The folder a video lies in and its bare name; without a folder "/" and the name."""
    return f"{path.rpartition('/')[0].rpartition('/')[2]}/{bare(path)}"
