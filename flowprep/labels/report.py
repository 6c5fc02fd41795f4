"""How annotations and files met: counts, the first few of each kind, and all of them as csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from flowprep.errors import FlowprepError
from flowprep.labels.base import Reader
from flowprep.records import printable

Status = Literal[
    "matched",
    "as-planned",
    "file-missing",
    "label-missing",
    "unlabelled",
    "listed-twice",
    "file-twice",
    "contradiction",
]
SAYS: dict[Status, str] = {
    "matched": "videos with an annotation",
    "as-planned": "files without an annotation, which stay as an earlier run has planned them",
    "file-missing": "annotated, but no file in --src",
    "label-missing": "files without an annotation, left out",
    "unlabelled": "files whose annotation tells no label, left out",
    "listed-twice": "annotated twice, both the same",
    "file-twice": "further files of a video that has one, left out",
    "contradiction": "annotations that contradict one another, or fit several videos",
}
SHOWN = 5
"""So many of a kind are named; --join-report has all."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What came of one file, or of one annotation."""

    status: Status
    path: str = ""  # of the file, below --src
    id: str = ""  # of the annotation
    label: str = ""
    split: str = ""
    where: str = ""  # file and line of the annotation
    detail: str = ""

    @property
    def name(self) -> str:
        shown = self.path or self.id
        return printable(f"{shown} ({self.detail})" if self.detail else shown)


@dataclass(frozen=True)
class JoinReport:
    """Every file and every annotation, by status."""

    kind: str  # which dataset
    entries: list[Entry]

    def of(self, status: Status) -> list[Entry]:
        return [entry for entry in self.entries if entry.status == status]

    @property
    def leaves_out(self) -> bool:
        """Whether there are files that will not be in the dataset."""
        return any(self.of(s) for s in ("label-missing", "unlabelled", "file-twice"))

    def lines(self) -> Iterator[str]:
        """For people: what was found, then what was not."""
        yield f"labels of {self.kind}: {len(self.of('matched')):,} {SAYS['matched']}"
        for status in get_args(Status)[1:]:
            if found := self.of(status):
                yield f"  {len(found):,} {SAYS[status]}: {_first(found)}"

    def as_dict(self) -> dict[str, Any]:
        """For machines: status -> count and the first few."""
        told: dict[str, Any] = {"kind": self.kind}
        for status in get_args(Status):
            found = self.of(status)
            told[status.replace("-", "_")] = {
                "count": len(found),
                "first": [vars(entry) for entry in found[:SHOWN]],
            }
        return told

    def to_csv(self) -> bytes:
        """All entries, one a line."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(entry) for entry in self.entries)
        return text.getvalue().encode("utf-8", "backslashreplace")

    def check(self, reader: Reader) -> None:
        """Raise FlowprepError when annotations contradict one another, or nothing has a label."""
        if wrong := self.of("contradiction"):
            raise FlowprepError(
                f"{len(wrong)} {SAYS['contradiction']}: {_first(wrong)}",
                "keep one, or tell videos apart by their paths; --join-report FILE.csv lists all",
            )
        if self.of("matched"):
            return
        if without := self.of("unlabelled"):
            raise FlowprepError(
                f"{without[0].where} and the others tell no label of any video in --src",
                "add the files that do, or pass --labels none",
            )
        file, annotation = self.of("label-missing"), self.of("file-missing")
        raise FlowprepError(
            f"no annotation fits a file: a file is {file[0].name if file else 'not there'!r}, "
            f"an annotation {annotation[0].id if annotation else 'not there'!r}",
            f"needed are files named {reader.files_are}; check --src and --labels {self.kind}:...",
        )


def _first(entries: list[Entry]) -> str:
    more = ", ..." if len(entries) > SHOWN else ""
    return ", ".join(entry.name for entry in entries[:SHOWN]) + more
