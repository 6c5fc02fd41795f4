"""What the user points at (folder, file, list) -> records.Video, not probed yet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import lt
from pathlib import Path, PurePosixPath
from sys import intern
from typing import Any

from flowprep.collector import collector_off
from flowprep.errors import FlowprepError
from flowprep.rawframes import parse_list
from flowprep.records import SPLIT, Video
from flowprep.storage import (
    VIDEO_SUFFIXES,
    Place,
    RemotePath,
    list_image_folders,
    list_videos,
    local_place,
    place_of,
    read_text,
    stamps,
    stamps_of,
)

Stamps = Callable[[str], tuple[int, int]]
SPLITS = ("train", "val", "test")
LIST_SUFFIXES = (".csv", ".parquet", ".jsonl")
COLUMNS = ("path", "label", "split", "start_s", "end_s")


@dataclass(frozen=True)
class Source:
    """Videos to extract, sorted by path and range. Paths are relative to `root`, or absolute."""

    root: Place
    videos: Sequence[Video]
    notes: list[str]  # what was decided and should be announced
    classes: list[str] = field(default_factory=list)  # all by index, where lists say

    @property
    def labelled(self) -> bool:
        return bool(self.videos) and bool(self.videos[0].label)


@collector_off()
def read_source(place: str, labels: str = "auto", style: str = "") -> Source:
    """The videos at `place`, or with `style` the folders of images, without labels unless `labels`
    is auto.

    Raises FlowprepError when there is none or the list is not usable.
    """
    if style:
        source = _from_image_folders(_folder_of_frames(place), place, labels == "auto")
        return _checked(_without_labels(source) if labels != "auto" else source, place)
    path = place_of(place, "--src")
    if not path.exists():
        raise FlowprepError(f"--src {place}: no such file or folder", "check the path")
    absolute = path.absolute()
    if path.is_dir():
        source = _from_folder(path.resolve(), list_videos(path.resolve()), labels == "auto")
    elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        source = _from_list(path.resolve())
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        source = Source(
            absolute.parent,
            [_video(stamps_of(absolute.parent, [absolute.name]), absolute.name)],
            [],
        )
    else:
        raise FlowprepError(
            f"--src {place}: not a folder, not a video by its name, and not a list",
            f"give a folder, a video ({', '.join(sorted(VIDEO_SUFFIXES))}), "
            f"or a list ({', '.join(LIST_SUFFIXES)}) with a column path",
        )
    return _checked(_without_labels(source) if labels != "auto" else source, place)


def _without_labels(source: Source) -> Source:
    return replace(source, videos=[replace(v, label="") for v in source.videos])


def _folder_of_frames(place: str) -> Path:
    folder = local_place(place, "FOLDER", "frames are imported from folders of this machine")
    if not folder.exists():
        raise FlowprepError(f"{place}: no such file or folder", "check the path")
    return folder.resolve()


def place_again(recorded: str, src: str) -> Place:
    """Where the videos of a dataset are now: at `src`, or where it says that they lay.

    Raises FlowprepError where it names a URL and `src` does not: a dataset may be a stranger's, and
    nothing is fetched on its word alone.
    """
    if src:
        return place_of(src, "--src").resolve()
    place = place_of(recorded, "the source in config.toml")
    if isinstance(place, RemotePath):
        raise FlowprepError(
            f"the dataset was made from {place}", f"say that you mean it: --src {place}"
        )
    return place


def root_at(place: Place) -> Place:
    """The folder that paths of the videos at `place` are told from."""
    return place.parent if place.is_file() else place


def _checked(source: Source, place: str) -> Source:
    if not source.videos:
        raise FlowprepError(
            f"--src {place}: no videos in it",
            f"give a folder that holds videos ({', '.join(sorted(VIDEO_SUFFIXES))}), "
            f"or a list of them with a column {COLUMNS[0]}",
        )
    for label, path in {v.label: v.path for v in reversed(source.videos)}.items():
        if label and (label.splitlines() != [label] or not _is_text(label)):
            raise FlowprepError(
                f"the label {label!r} of {path!r} holds a line break or is not UTF-8",
                "rename it, or pass --labels none",
            )
    unlabelled = [v.path for v in source.videos if not v.label]
    if 0 < len(unlabelled) < len(source.videos):
        raise FlowprepError(
            f"{len(unlabelled)} of {len(source.videos)} videos have no label, "
            f"the first is {unlabelled[0]!r}",
            "label all of them, or pass --labels none",
        )
    return replace(source, videos=_unique(source.videos))


def identity(video: Video) -> tuple[str, float, float]:
    """What tells two entries apart: the path and the time range."""
    start = -math.inf if video.range_start_s is None else video.range_start_s
    end = math.inf if video.range_end_s is None else video.range_end_s
    return video.path, start, end


def _unique(videos: Sequence[Video]) -> list[Video]:
    """Each once, in the order of their identities."""
    paths = [video.path for video in videos]
    if all(map(lt, paths, paths[1:])):
        return list(videos)
    seen: dict[tuple[str, float, float], Video] = {}
    for video in videos:
        first = seen.setdefault(identity(video), video)
        if (first.label, first.split) != (video.label, video.split):
            raise FlowprepError(
                f"{video.path!r} is listed twice, as {first.split}/{first.label or '-'} "
                f"and as {video.split}/{video.label or '-'}",
                "keep one of the rows",
            )
    return [seen[one] for one in sorted(seen)]


def _video(told: Stamps, path: str, **fields: Any) -> Video:
    """A Video with the file's size and time, or a reason when there is none."""
    if not _is_text(path):
        shown = path.encode("utf-8", "backslashreplace").decode()
        message = "its name is not UTF-8; rename it"
        return Video(
            path=shown, size_bytes=-1, mtime_ns=-1, reason="unreadable", message=message, **fields
        )
    try:
        size_bytes, mtime_ns = told(path)
    except (FileNotFoundError, NotADirectoryError):
        fields |= {"reason": "missing", "message": "no such file"}
    except OSError as error:
        fields |= {"reason": "unreadable", "message": str(error.strerror)}
    else:
        return Video(path=path, size_bytes=size_bytes, mtime_ns=mtime_ns, **fields)
    return Video(path=path, size_bytes=-1, mtime_ns=-1, **fields)


def _is_text(name: str) -> bool:
    """Whether a file name is more than bytes: those of other systems need not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_listed(
    place: str, lists: Mapping[str, Path], classes: Sequence[str], labels: str = "auto"
) -> Source:
    """The folders of images below `place` that the lists name; split -> its list.

    Labels are class names where there are any, else the numbers. Raises FlowprepError.
    """
    root = _folder_of_frames(place)
    lines = [
        (split, path, line)
        for split, path in lists.items()
        for line in parse_list(read_text(path), path.name)
    ]
    highest = max((line.label for _, _, line in lines), default=-1)
    if classes and highest >= len(classes):
        raise FlowprepError(
            f"a list has the label {highest}, and there are {len(classes)} class names",
            "give the names of all classes, one a line, from label 0 on",
        )
    names, told = list(classes) or [str(number) for number in range(highest + 1)], stamps(root)
    videos = [
        _video(
            told,
            _below(root, path, line.folder),
            split=split,
            label=names[line.label] if line.label >= 0 and labels == "auto" else "",
        )
        for split, path, line in lines
    ]
    return _checked(Source(root, videos, [], names if labels == "auto" else []), place)


def _below(root: Path, list_file: Path, folder: str) -> str:
    """The path of a folder from `root`: told from there, or as it is opened."""
    for found in (root / folder, Path(folder).absolute()):
        if found.is_dir() and found.resolve().is_relative_to(root):
            return found.resolve().relative_to(root).as_posix()
    if ".." in PurePosixPath(folder).parts or PurePosixPath(folder).is_absolute():
        raise FlowprepError(
            f"{list_file.name}: {folder!r} is not below {root}", "give the folder that holds all"
        )
    return PurePosixPath(folder).as_posix()


def _from_image_folders(root: Path, place: str, labelled: bool) -> Source:
    if not root.is_dir():
        raise FlowprepError(f"{place} is not a folder", "give the folder of the extracted frames")
    if not (paths := list_image_folders(root)):
        raise FlowprepError(
            f"{place}: no folder of images in it",
            "give the folder that holds a folder for each video, or for each class",
        )
    return _from_folder(root, paths, labelled)


def _from_folder(root: Place, paths: list[str], labelled: bool) -> Source:
    has_splits = bool(paths) and all("/" in p and p.split("/", 1)[0] in SPLITS for p in paths)
    inner = [p.split("/", 1)[1] for p in paths] if has_splits else paths
    is_tree = bool(paths) and all(p.count("/") == 1 for p in inner)
    told = stamps(root)
    videos = [
        _video(
            told,
            p,
            split=intern(p.split("/", 1)[0]) if has_splits else "train",
            label=intern(p_inner.split("/")[0]) if is_tree else "",
        )
        for p, p_inner in zip(paths, inner, strict=True)
    ]
    odd = _odd_one(paths, inner) if labelled else ""
    return Source(root, videos, list(_folder_notes(videos, has_splits, is_tree and labelled, odd)))


def _odd_one(paths: list[str], inner: list[str]) -> str:
    """The first video that keeps a tree of folders from being classes; "" where there is none."""
    if not any("/" in path for path in inner):
        return ""
    return next((p for p, q in zip(paths, inner, strict=True) if q.count("/") != 1), "")


def _folder_notes(videos: list[Video], has_splits: bool, is_tree: bool, odd: str) -> Iterator[str]:
    if has_splits:
        counts = Counter(v.split for v in videos)
        yield "splits from the top folders: " + ", ".join(f"{s} {n}" for s, n in counts.items())
    if is_tree:
        classes = sorted({v.label for v in videos})
        shown = ", ".join(classes if len(classes) <= 6 else [*classes[:5], "..."])
        yield f"labels from the folders: {len(classes)} classes ({shown}); --labels none stops it"
    elif odd:
        yield f"no labels: folders give them where all videos lie as class/video; {odd!r} does not"


def _from_list(path: Place) -> Source:
    rows = [_read_row(path, number, row) for number, row in enumerate(_rows(path), start=1)]
    told = stamps_of(path.parent, (fields["path"] for fields, _ in rows))
    ignored = sorted({name for _, unused in rows for name in unused})
    note = f"columns not used: {', '.join(ignored)}" if ignored else ""
    return Source(path.parent, [_video(told, **row) for row, _ in rows], [note] if note else [])


def _rows(path: Place) -> Iterable[Any]:
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            import pyarrow.parquet as pq

            with path.open("rb") as file:
                return pq.ParquetFile(file).read().to_pylist()
        text = path.read_bytes().decode("utf-8-sig")
        return _csv_rows(text) if kind == ".csv" else _json_rows(text)
    except (ValueError, OSError, csv.Error) as error:
        hint = f"mend the file: UTF-8, columns {', '.join(COLUMNS)}; only path is needed"
        raise FlowprepError(f"cannot read {path}: {error}", hint) from error


def _csv_rows(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    if "path" not in (reader.fieldnames or ["path"]):
        raise ValueError(
            f"no column 'path' in its first line: {', '.join(reader.fieldnames or ())}"
        )
    rows = list(reader)
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"row {number} has more values than there are columns")
    return rows


def _json_rows(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
    return rows


def _read_row(path: Place, number: int, row: Any) -> tuple[dict[str, Any], set[str]]:
    """What a row says of a video, and the columns that are not used."""

    def refuse(what: str, hint: str) -> FlowprepError:
        return FlowprepError(f"{path.name}, row {number}: {what}", hint)

    if not isinstance(row, dict) or row.get("path") in (None, ""):
        raise refuse("no path", f"columns: {', '.join(COLUMNS)}; only path is needed")
    where = row["path"]
    if not isinstance(where, str) or "\0" in where:
        raise refuse(f"path {where!r} is not a path", "give the path or URL of a file as text")
    split = str(row.get("split") or "train")
    if not SPLIT.fullmatch(split):
        raise refuse(f"split {split!r} is not usable", "use a-z, 0-9 and _, at most 32 of them")
    try:
        start, end = _seconds(row.get("start_s")), _seconds(row.get("end_s"))
    except (ValueError, TypeError) as error:
        raise refuse(f"start_s or end_s: {error}", "give seconds from the first frame") from error
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise refuse(f"start_s {start}, end_s {end}", "needed is 0 <= start_s < end_s")
    label = "" if row.get("label") is None else row["label"]
    if not isinstance(label, str | int):
        raise refuse(f"label {label!r} is neither text nor a whole number", "write it as text")
    found = {
        "path": where if "://" in where else _local(path.parent, where),
        "split": split,
        "label": str(label),
        "range_start_s": start,
        "range_end_s": end,
    }
    return found, set(row) - set(COLUMNS)


def _local(root: Place, where: str) -> str:
    """One spelling for a path; a backslash parts folders unless the file's name has one."""
    if "\\" in where and (isinstance(root, RemotePath) or not (root / where).exists()):
        where = where.replace("\\", "/")
    return PurePosixPath(where).as_posix()


def _seconds(value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a number of seconds")
    return seconds
