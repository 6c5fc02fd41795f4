"""Made-up trees of files and the annotation files beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowprep.labels.join import join
from flowprep.labels.registry import READERS, chosen
from flowprep.labels.report import JoinReport
from flowprep.sources import read_source


@dataclass(frozen=True)
class Met:
    """What came of joining a folder with annotation files."""

    videos: dict[str, tuple[str, str]]  # path -> (split, label)
    classes: list[str]
    report: JoinReport

    def counts(self) -> dict[str, int]:
        told = {status: len(self.report.of(status)) for status in ORDER}
        return {status: n for status, n in told.items() if n}

    def paths(self, status: str) -> set[str]:
        return {entry.path for entry in self.report.entries if entry.status == status}


ORDER = (
    *("matched", "as-planned", "file-missing", "label-missing", "unlabelled", "listed-twice"),
    *("file-twice", "contradiction"),
)


def _meet(src: Path, *texts: str) -> Met:
    kind, places = chosen(texts)
    assert kind is not None
    annotations = READERS[kind].load(places)
    videos, report = join(kind, READERS[kind], read_source(str(src), kind).videos, annotations, {})
    labels = {video.path: (video.split, video.label) for video in videos}
    return Met(labels, annotations.classes, report)


def _touch(root: Path, paths: Iterable[str], data: bytes = b"x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@pytest.fixture(scope="session")
def meet() -> Callable[..., Met]:
    """meet(src, "kinetics:train.csv", ...) joins as `flowprep extract --labels` does."""
    return _meet


@pytest.fixture(scope="session")
def touch() -> Callable[..., None]:
    """touch(root, paths, data=b"x") writes small files."""
    return _touch
