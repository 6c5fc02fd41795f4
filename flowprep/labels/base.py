"""What every reader of annotation files gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowprep.errors import FlowprepError
from flowprep.records import SPLIT


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a dataset says of one video."""

    id: str  # the dataset's own name of the video
    label: str  # "" = not told
    split: str  # "" = not told
    where: str  # file and line
    names: tuple[str, ...]  # any of them leads from a file to here, see Reader.names

    def __post_init__(self) -> None:
        for text in (self.id, self.label):
            check_name(text, self.where)
        if self.split and not SPLIT.fullmatch(self.split):
            raise FlowprepError(
                f"{self.where}: split {self.split!r} is not usable",
                "use train, val, test, or another name of a-z, 0-9 and _, at most 32 of them",
            )


def check_name(text: str, where: str) -> None:
    """Raise FlowprepError for what no line of a file holds; JSON can escape what no UTF-8 does."""
    try:
        text.encode()
        is_line = text.splitlines() in ([], [text])
    except UnicodeEncodeError:
        is_line = False
    if not is_line:
        raise FlowprepError(
            f"{where}: {text!r} holds a line break or is not UTF-8", "write it on one line"
        )


@dataclass(frozen=True)
class Annotations:
    """What the annotation files of a dataset say."""

    rows: list[Annotation]
    classes: list[str]  # every class, by index


def by_name(rows: list[Annotation]) -> Annotations:
    """Of a dataset that has no order of classes: they are sorted by name."""
    return Annotations(rows, sorted({row.label for row in rows if row.label}))


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a dataset tells labels and names its videos."""

    load: Callable[[Sequence[str]], Annotations]  # from what stands behind the colon of --labels
    names: Callable[[str], Sequence[str]]  # a video's path -> names to look for, the surest first
    usage: str  # what to write after --labels
    files_are: str  # how its videos are named
    near: Callable[[str], str] = lambda path: ""  # a name under which others of its kind may be
    rank: Callable[[str], int] = lambda path: 0  # of several files of one video the lowest is taken
    has_copies: bool = True  # whether files of one name in several folders are copies
