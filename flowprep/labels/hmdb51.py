"""HMDB51: a folder of <class>_test_split<N>.txt, three for each class.

File names hold [ ] # & ! ( ): nothing here takes them for a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.labels.base import Annotation, Annotations, Reader
from flowprep.labels.files import bare, existing, numbered, read_lines, with_folder

SPLIT_FILE = re.compile(r"(.+)_test_split([0-9]+)\.txt", re.IGNORECASE)
SPLIT_OF_TAG = {"1": "train", "2": "test", "0": "unused"}


def load(places: Sequence[str]) -> Annotations:
    """A folder, with #N for the split. Raises FlowprepError."""
    if len(places) != 1:
        raise FlowprepError(
            f"--labels hmdb51: {len(places)} places",
            "give one folder: it has all classes, and a dataset follows one of its splits",
        )
    place, number = numbered(places[0])
    folder = existing(place, "hmdb51", folder=True)
    named = {path: SPLIT_FILE.fullmatch(path.name) for path in sorted(folder.iterdir())}
    found = [(m[1], int(m[2]), path) for path, m in named.items() if m]
    lists = {name: path for name, n, path in found if n == number}
    if not lists:
        numbers = ", ".join(map(str, sorted({n for _, n, _ in found}))) or "none"
        raise FlowprepError(
            f"--labels hmdb51:{places[0]}: no <class>_test_split{number}.txt in it",
            f"splits in it: {numbers}; choose one by hmdb51:{place}#2",
        )
    rows = [row for name, path in lists.items() for row in _rows(path, name)]
    return Annotations(rows, sorted(lists))


def _rows(path: Path, label: str) -> Iterator[Annotation]:
    for where, line in read_lines(path):
        video, _, tag = line.rpartition(" ")
        if not video.strip() or tag not in SPLIT_OF_TAG:
            raise FlowprepError(
                f"{where}: {line!r}",
                "a line is <video>.avi and 1 for training, 2 for testing, or 0 for neither",
            )
        name = bare(video.strip())
        yield Annotation(
            id=f"{label}/{name}",
            label=label,
            split=SPLIT_OF_TAG[tag],
            where=where,
            names=(f"{label}/{name}", name),
        )


READER = Reader(
    load=load,
    names=lambda path: (with_folder(path), bare(path)),
    usage="hmdb51:splits/",
    files_are="<class>/<video>.avi",
)
