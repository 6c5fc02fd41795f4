"""Any dataset: a csv with the label of each video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from flowprep.errors import FlowprepError
from flowprep.labels.base import Annotation, Annotations, Reader, by_name
from flowprep.labels.files import bare, existing, read_csv, split_named, split_of_file

JOIN_BY = ("path", "name", "id")
COLUMNS = (
    "columns: label, split if you like, and one of path (below --src), name, id (a file's name, "
    "with or without its suffix)"
)


def load(places: Sequence[str]) -> Annotations:
    """The rows of all files. Raises FlowprepError for what cannot be read."""
    return by_name([row for place in places for row in _rows(existing(place, "csv"))])


def _rows(path: Path) -> Iterator[Annotation]:
    for where, row in read_csv(path, ("label",)):
        by = [name for name in JOIN_BY if name in row]
        if len(by) != 1:
            raise FlowprepError(f"{path.name} has the columns {', '.join(row)}", COLUMNS)
        value = row[by[0]]
        if not value or (by[0] == "path" and PurePosixPath(value).is_absolute()):
            what = f"{value!r} does not count from --src" if value else f"no {by[0]}"
            raise FlowprepError(f"{where}: {what}", COLUMNS)
        yield Annotation(
            id=value,
            label=row["label"],
            split=split_named(row.get("split") or split_of_file(path)),
            where=where,
            names=(_as_path(value) if by[0] == "path" else value,),
        )


def _as_path(value: str) -> str:
    """Apart from names: a path that is only a name is meant for one place."""
    return "/" + PurePosixPath(value.replace("\\", "/")).as_posix()


READER = Reader(
    load=load,
    names=lambda path: (f"/{path}", PurePosixPath(path).name, bare(path)),
    usage="csv:labels.csv",
    files_are="as the csv has them",
    has_copies=False,
)
