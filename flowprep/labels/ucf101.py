"""UCF101: classInd.txt, and lists of the videos for training and testing in three splits.

The class HandstandPushups has files named v_HandStandPushups_*, and copies of the dataset mend
either: upper and lower case do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from flowprep.errors import FlowprepError
from flowprep.labels.base import Annotation, Annotations, Reader
from flowprep.labels.files import (
    bare,
    existing,
    numbered,
    read_lines,
    split_of_file,
    with_folder,
)

A_LINE = "a line is <class>/<video>.avi, with the class's number in lists for training"
LINE = re.compile(r"(\S+)(?:\s+([0-9]{1,6}))?")
NUMBER = re.compile(r"[0-9]{1,6}")
CLASS_IN_NAME = re.compile(r"v_(.+)_g[0-9]+_c[0-9]+")


def load(places: Sequence[str]) -> Annotations:
    """Lists, or folders that hold them with #N for the split. Raises FlowprepError."""
    lists = [path for place in places for path in _lists(place)]
    classes = _classes(lists[0].with_name("classInd.txt"))
    rows = [row for path in lists for row in _rows(path, classes)]
    return Annotations(rows, classes)


def _lists(place: str) -> list[Path]:
    folder, number = numbered(place)
    if Path(folder).is_dir():
        names = [f"{split}list{number:02d}.txt" for split in ("train", "test")]
        return [existing(f"{folder}/{name}", "ucf101") for name in names]
    return [existing(place, "ucf101")]


def _classes(path: Path) -> list[str]:
    """Class names; the file counts them from 1."""
    if not path.is_file():
        raise FlowprepError(
            f"there is no {path.name} in {path.parent}",
            "put it there: it comes with the lists",
        )
    by_number: dict[int, str] = {}
    for where, line in read_lines(path):
        number, _, name = line.partition(" ")
        if not NUMBER.fullmatch(number) or not name.strip() or int(number) in by_number:
            raise FlowprepError(f"{where}: {line!r}", "a line is a number from 1 up and a class")
        by_number[int(number)] = name.strip()
    if sorted(by_number) != list(range(1, len(by_number) + 1)):
        raise FlowprepError(f"{path.name} does not number its classes 1, 2, 3, ...", "get it again")
    return [by_number[number] for number in sorted(by_number)]


def _rows(path: Path, classes: list[str]) -> Iterator[Annotation]:
    folded = {name.casefold(): name for name in classes}
    split = split_of_file(path)
    for where, line in read_lines(path):
        parts = LINE.fullmatch(line)
        if not parts:
            raise FlowprepError(f"{where}: {line!r}", A_LINE)
        video, number = parts[1], parts[2] or ""
        named = folded.get(_class_of(video).casefold(), "")
        label = _numbered_class(where, int(number), classes) if number else named
        if not label or named not in ("", label):
            says = f"{label} (class {number})" if label else "none of classInd.txt"
            raise FlowprepError(
                f"{where}: {video!r} lies in class {_class_of(video)!r}, the line says {says}",
                A_LINE,
            )
        folder_and_name = f"{label}/{bare(video)}"
        yield Annotation(
            id=folder_and_name,
            label=label,
            split=split,
            where=where,
            names=(folder_and_name.casefold(), bare(video).casefold()),
        )


def _class_of(video: str) -> str:
    in_name = CLASS_IN_NAME.fullmatch(bare(video))
    return PurePosixPath(video).parent.name or (in_name[1] if in_name else "")


def _numbered_class(where: str, number: int, classes: list[str]) -> str:
    if not 1 <= number <= len(classes):
        raise FlowprepError(
            f"{where}: there is no class {number}", f"classInd.txt has 1 to {len(classes)}"
        )
    return classes[number - 1]


READER = Reader(
    load=load,
    names=lambda path: (with_folder(path).casefold(), bare(path).casefold()),
    usage="ucf101:splits/trainlist01.txt",
    files_are="<class>/v_<class>_g01_c01.avi",
)
