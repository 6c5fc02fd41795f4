"""Something-Something v2: lists of id and template, and labels.json with the index of each class.

test.json has no templates; test-answers.csv, which came later, has the class of each test video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.labels.base import Annotation, Annotations, Reader, check_name
from flowprep.labels.files import bare, existing, read_json, read_lines, split_of_file

BESIDE = ("labels.json", "something-something-v2-labels.json")


def load(places: Sequence[str]) -> Annotations:
    """Lists, and labels.json or one beside them. Raises FlowprepError."""
    paths = [existing(place, "ssv2") for place in places]
    contents = {path: read_json(path) for path in paths if path.suffix.lower() != ".csv"}
    tables = [path for path, content in contents.items() if isinstance(content, dict)]
    lists = [path for path in paths if path not in tables]
    if not lists or len(tables) > 1:
        what = "no list of videos" if not lists else f"{len(tables)} files with classes"
        raise FlowprepError(f"--labels ssv2: {what}", "give train.json, say, and one labels.json")
    labels = tables[0] if tables else _beside(lists[0])
    classes = _classes(labels, contents.get(labels) or read_json(labels))
    known, rows = set(classes), list[Annotation]()
    for path in lists:
        rows += _items(path, contents[path], known) if path in contents else _answers(path, known)
    return Annotations(rows, classes)


def _beside(listed: Path) -> Path:
    for name in BESIDE:
        if listed.with_name(name).is_file():
            return listed.with_name(name)
    raise FlowprepError(
        f"--labels ssv2: no labels.json is given, and none is beside {listed.name}",
        "it has the order of the classes: ssv2:train.json,labels.json",
    )


def _classes(path: Path, table: Any) -> list[str]:
    try:
        by_index = {int(index): str(name) for name, index in table.items()}
        classes = [by_index[i] for i in range(len(table))]
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise FlowprepError(
            f"{path.name} does not give each class an index from 0 up",
            'it looks like {"Approaching something with your camera": "0", ...}',
        ) from error
    for name in classes:
        check_name(name, path.name)
    return classes


def _items(path: Path, items: Any, known: set[str]) -> Iterator[Annotation]:
    if not isinstance(items, list):
        raise FlowprepError(f"{path.name} holds no list of videos", "give train.json, say")
    for number, item in enumerate(items, start=1):
        where = f"{path.name}, entry {number}"
        if not isinstance(item, dict) or not str(item.get("id") or ""):
            raise FlowprepError(
                f"{where}: no id",
                'an entry looks like {"id": "78687", "template": "Holding [something]"}',
            )
        template = str(item.get("template") or "")
        label = template.replace("[", "").replace("]", "")
        yield _annotation(where, str(item["id"]), label, path, known)


def _answers(path: Path, known: set[str]) -> Iterator[Annotation]:
    for where, line in read_lines(path):
        video, semicolon, label = line.partition(";")
        if not semicolon:
            raise FlowprepError(f"{where}: {line!r}", "a line is <id>;<class>")
        yield _annotation(where, video.strip(), label.strip(), path, known)


def _annotation(where: str, video: str, label: str, path: Path, known: set[str]) -> Annotation:
    if label and label not in known:
        raise FlowprepError(
            f"{where}: {label!r} is no class of labels.json",
            "give the labels.json of this release",
        )
    return Annotation(id=video, label=label, split=split_of_file(path), where=where, names=(video,))


READER = Reader(
    load=load,
    names=lambda path: (bare(path),),
    usage="ssv2:train.json,labels.json",
    files_are="<id>.webm",
)
