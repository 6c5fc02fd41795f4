"""Kinetics-400, -600, -700 and -700-2020: a csv or json for each split, files named by YouTube id.

Test files may have no labels. Ids may start with - or _, and their case counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.labels.base import Annotation, Annotations, Reader, by_name
from flowprep.labels.files import bare, existing, read_csv, read_json, split_named, split_of_file

NEEDED = ("youtube_id", "time_start", "time_end")
REPLACEMENT = re.compile(r"(^|/)replacement[^/]*/")
TRIMMED = re.compile(r"(.+)_([0-9]{6,})_([0-9]{6,})")


def load(places: Sequence[str]) -> Annotations:
    """The annotations of all files. Raises FlowprepError for what cannot be read."""
    rows: list[Annotation] = []
    for place in places:
        path = existing(place, "kinetics")
        rows += _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)
    return by_name(rows)


def _from_csv(path: Path) -> Iterator[Annotation]:
    for where, row in read_csv(path, NEEDED):
        split = row.get("split") or split_of_file(path)
        times = (row["time_start"], row["time_end"])
        yield _annotation(where, row["youtube_id"], times, row.get("label", ""), split)


def _from_json(path: Path) -> Iterator[Annotation]:
    table = read_json(path)
    if not isinstance(table, dict):
        raise FlowprepError(
            f"{path.name} holds a {type(table).__name__}, not one object by YouTube id",
            "give the json or the csv that Kinetics comes with",
        )
    for youtube_id, item in table.items():
        where = f"{path.name}, {youtube_id!r}"
        try:
            start, end = item["annotations"]["segment"]
            label = str(item["annotations"].get("label") or "")
            split = str(item.get("subset") or split_of_file(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FlowprepError(
                f"{where}: has no annotations.segment of two times",
                'an entry looks like {"annotations": {"label": ..., "segment": [0.0, 10.0]}}',
            ) from error
        yield _annotation(where, youtube_id, (start, end), label, split)


def _annotation(
    where: str, youtube_id: str, times: tuple[Any, Any], label: str, split: str
) -> Annotation:
    if not youtube_id:
        raise FlowprepError(f"{where}: no youtube_id", "every row needs one")
    start, end = (_whole_seconds(where, value) for value in times)
    name = f"{youtube_id}_{start:06d}_{end:06d}"
    return Annotation(
        id=name,
        label=label.replace('"', "").strip(),
        split=split_named(split),
        where=where,
        names=(name, youtube_id),
    )


def _whole_seconds(where: str, value: Any) -> int:
    try:
        seconds = int(float(value))
    except (TypeError, ValueError, OverflowError):
        seconds = -1
    if seconds < 0:
        raise FlowprepError(
            f"{where}: {value!r} is not a time", "time_start and time_end are seconds from 0 up"
        )
    return seconds


def _near(path: str) -> str:
    trimmed = TRIMMED.fullmatch(bare(path))
    return trimmed[1] if trimmed else ""


def _rank(path: str) -> int:
    """Kinetics-400 comes with a folder of replacements for videos that are damaged."""
    return 0 if REPLACEMENT.search(path) else 1


READER = Reader(
    load=load,
    names=lambda path: (bare(path),),
    usage="kinetics:train.csv",
    files_are="<youtube id>_<start>_<end>.mp4, both of six digits, or <youtube id>.mp4",
    near=_near,
    rank=_rank,
)
