"""Videos and annotations, joined by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import get_args

from flowprep.labels.base import Annotation, Annotations, Reader
from flowprep.labels.report import Entry, JoinReport, Status
from flowprep.records import Video

Planned = Mapping[str, tuple[str, str]]
"""Path -> (split, label) of the videos that an earlier run has planned."""
ORDER = {status: place for place, status in enumerate(get_args(Status))}


@dataclass
class _Join:
    reader: Reader
    planned: Planned
    annotated: dict[str, Annotation] = field(default_factory=dict)  # by id
    found: dict[str, Annotation] = field(default_factory=dict)  # by path
    entries: list[Entry] = field(default_factory=list)

    def add(self, status: Status, annotation: Annotation | None, path: str, detail: str) -> None:
        a = annotation
        told = {"id": a.id, "label": a.label, "split": a.split, "where": a.where} if a else {}
        self.entries.append(Entry(status=status, path=path, detail=detail, **told))


def join(
    kind: str,
    reader: Reader,
    videos: Sequence[Video],
    annotations: Annotations,
    planned: Planned,
) -> tuple[list[Video], JoinReport]:
    """The videos that have a label, with label and split, and a report of all.

    Of several files for one annotation one is taken: one with bytes, then one that is planned, then
    by the reader's rank, then by path. Where an annotation tells no split the video keeps its own.
    What is planned and not annotated (files of another split are given this time) stays as it is.
    """
    work = _Join(reader, planned)
    _gather(work, annotations.rows)
    files = _matched(work, videos)
    _tell_files(work, files, {video.path: video for video in videos})
    taken = [
        _annotated(video, work.found[video.path]) for video in videos if video.path in work.found
    ]
    work.entries.sort(key=lambda e: (ORDER[e.status], e.path, e.id, e.where))
    return taken, JoinReport(kind, work.entries)


def _annotated(video: Video, annotation: Annotation) -> Video:
    return replace(video, label=annotation.label, split=annotation.split or video.split)


def _gather(work: _Join, rows: Iterable[Annotation]) -> None:
    """One annotation for each id: what one row leaves out, another may tell."""
    for row in rows:
        first = work.annotated.setdefault(row.id, row)
        if first is row:
            continue
        if not _agree([first, row]):
            work.add("contradiction", row, "", f"{_says(first)}; {_says(row)}")
            continue
        if first.label and row.label:
            work.add("listed-twice", row, "", f"{first.where}; {row.where}")
        work.annotated[row.id] = replace(
            first, label=first.label or row.label, split=first.split or row.split
        )


def _says(annotation: Annotation) -> str:
    told = "/".join(part for part in (annotation.split, annotation.label) if part)
    return f"{annotation.where}: {told or 'nothing'}"


def _agree(annotations: Sequence[Annotation]) -> bool:
    labels = {a.label for a in annotations if a.label}
    splits = {a.split for a in annotations if a.split}
    return len(labels) <= 1 and len(splits) <= 1


def _matched(work: _Join, videos: Iterable[Video]) -> dict[str, list[str]]:
    """id of an annotation -> paths of its files. A file may answer for several that agree."""
    by_name: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in work.annotated.values():
        for name in annotation.names:
            by_name[name].append(annotation)
    files: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(video.path for video in videos):
        hits = next((by_name[n] for n in work.reader.names(path) if n in by_name), [])
        if not hits and path in work.planned:
            split, label = work.planned[path]
            kept = Annotation(id="", label=label, split=split, where="the plan", names=())
            work.found[path] = kept
            work.add("as-planned", kept, path, "")
        elif not hits:
            near = by_name.get(work.reader.near(path), [])
            detail = f"annotated is {', '.join(a.id for a in near[:3])}" if near else ""
            work.add("label-missing", None, path, detail)
        elif not _agree(hits):
            work.add("contradiction", hits[0], path, "; ".join(_says(a) for a in hits))
        for annotation in hits:
            files[annotation.id].append(path)
    return files


def _tell_files(work: _Join, files: dict[str, list[str]], videos: dict[str, Video]) -> None:
    """Choose the file of each annotation, and tell what comes of all of them."""

    def preference(path: str) -> tuple[bool, bool, int, str]:
        is_empty, is_new = videos[path].size_bytes <= 0, path not in work.planned
        return is_empty, is_new, work.reader.rank(path), path

    spare: dict[str, tuple[Annotation, str]] = {}
    for annotation in work.annotated.values():
        paths = files.get(annotation.id, [])
        if not paths:
            work.add("file-missing", annotation, "", "")
            continue
        if not work.reader.has_copies and len({PurePosixPath(p).parent for p in paths}) > 1:
            work.add("contradiction", annotation, "", f"fits {', '.join(sorted(paths)[:3])}")
            continue
        first, *others = sorted(paths, key=preference) if len(paths) > 1 else paths
        work.found.setdefault(first, annotation)
        spare |= {path: (annotation, f"{first} is taken") for path in others}
    for path, (annotation, detail) in spare.items():
        if path not in work.found:
            work.add("file-twice", annotation, path, detail)
    for path, annotation in [(p, a) for p, a in work.found.items() if a.id]:
        work.add("matched" if annotation.label else "unlabelled", annotation, path, "")
        if not annotation.label:
            del work.found[path]
