"""What the user points at (folder, file, list) -> records.Video, not probed yet."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.records import Video
from flowprep.storage import list_videos, refuse_url

SPLITS = ("train", "val", "test")
LIST_SUFFIXES = (".csv", ".parquet", ".jsonl")
COLUMNS = ("path", "label", "split", "start_s", "end_s")


@dataclass(frozen=True)
class Source:
    """Videos to extract, sorted by path and range. Paths are relative to `root`, or absolute."""

    root: Path
    videos: list[Video]
    notes: list[str]  # what was decided and should be announced

    @property
    def labelled(self) -> bool:
        return bool(self.videos) and bool(self.videos[0].label)


def read_source(place: str, labels: str = "auto") -> Source:
    """The videos at `place`. Raises FlowprepError when there is none or the list is not usable."""
    path = refuse_url(place, "--src")
    if not path.exists():
        raise FlowprepError(f"--src {place}: no such file or folder", "check the path")
    if path.is_dir():
        source = _from_folder(path.resolve())
    elif path.suffix.lower() in LIST_SUFFIXES:
        source = _from_list(path.resolve())
    else:
        absolute = path.resolve()
        source = Source(absolute.parent, [_video(absolute.parent, absolute.name)], [])
    if labels == "none":
        source = replace(source, videos=[replace(v, label="") for v in source.videos])
    return _checked(source, place)


def _checked(source: Source, place: str) -> Source:
    if not source.videos:
        raise FlowprepError(
            f"--src {place}: no videos in it",
            f"it needs files such as .mp4, or rows ({COLUMNS[0]})",
        )
    unlabelled = [v.path for v in source.videos if not v.label]
    if 0 < len(unlabelled) < len(source.videos):
        raise FlowprepError(
            f"{len(unlabelled)} of {len(source.videos)} videos have no label, "
            f"the first is {unlabelled[0]!r}",
            "label all of them, or pass --labels none",
        )
    return replace(source, videos=sorted(_unique(source.videos), key=identity))


def identity(video: Video) -> tuple[str, float, float]:
    """What tells two entries apart: the path and the time range."""
    start = -math.inf if video.range_start_s is None else video.range_start_s
    end = math.inf if video.range_end_s is None else video.range_end_s
    return video.path, start, end


def _unique(videos: list[Video]) -> Iterator[Video]:
    seen: dict[tuple[str, float, float], Video] = {}
    for video in videos:
        first = seen.setdefault(identity(video), video)
        if first is video:
            yield video
        elif (first.label, first.split) != (video.label, video.split):
            raise FlowprepError(
                f"{video.path!r} is listed twice, as {first.split}/{first.label or '-'} "
                f"and as {video.split}/{video.label or '-'}",
                "keep one of the rows",
            )


def _video(root: Path, path: str, **fields: Any) -> Video:
    """A Video with the file's size and time, or a reason when there is none."""
    try:
        stat = (root / path).stat()
    except FileNotFoundError:
        fields |= {"reason": "missing", "message": "no such file"}
    except OSError as error:
        fields |= {"reason": "unreadable", "message": str(error.strerror)}
    else:
        return Video(path=path, size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, **fields)
    return Video(path=path, size_bytes=-1, mtime_ns=-1, **fields)


def _from_folder(root: Path) -> Source:
    paths = list_videos(root)
    split_of = {p: p.split("/", 1)[0] for p in paths if p.split("/", 1)[0] in SPLITS and "/" in p}
    has_splits = bool(paths) and len(split_of) == len(paths)
    inner = {p: p.split("/", 1)[1] if has_splits else p for p in paths}
    is_tree = bool(paths) and all(p.count("/") == 1 for p in inner.values())
    videos = [
        _video(
            root,
            p,
            split=split_of[p] if has_splits else "train",
            label=inner[p].split("/")[0] if is_tree else "",
        )
        for p in paths
    ]
    return Source(root, videos, list(_folder_notes(videos, has_splits, is_tree)))


def _folder_notes(videos: list[Video], has_splits: bool, is_tree: bool) -> Iterator[str]:
    if has_splits:
        counts = Counter(v.split for v in videos)
        yield "splits from the top folders: " + ", ".join(f"{s} {n}" for s, n in counts.items())
    if is_tree:
        classes = sorted({v.label for v in videos})
        shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        yield f"labels from the folders: {len(classes)} classes ({shown}); --labels none stops it"


def _from_list(path: Path) -> Source:
    videos, ignored = [], set()
    for number, row in enumerate(_rows(path), start=1):
        ignored |= set(row) - set(COLUMNS)
        videos.append(_row_video(path, number, row))
    note = f"columns not used: {', '.join(sorted(ignored))}" if ignored else ""
    return Source(path.parent, videos, [note] if note else [])


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return list(csv.DictReader(text.splitlines()))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, OSError) as error:
        raise FlowprepError(f"cannot read {path}: {error}", "check the file") from error


def _row_video(path: Path, number: int, row: Any) -> Video:
    def refuse(what: str, hint: str) -> FlowprepError:
        return FlowprepError(f"{path.name}, row {number}: {what}", hint)

    if not isinstance(row, dict) or not row.get("path"):
        raise refuse("no path", f"columns: {', '.join(COLUMNS)}; only path is needed")
    split = str(row.get("split") or "train")
    if not re.fullmatch(r"[a-z0-9_]{1,32}", split):
        raise refuse(f"split {split!r}", "use small letters, digits and _, at most 32")
    try:
        start, end = _seconds(row.get("start_s")), _seconds(row.get("end_s"))
    except ValueError as error:
        raise refuse(f"start_s or end_s: {error}", "give seconds from the first frame") from error
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise refuse(f"range {start} to {end} s", "0 <= start_s < end_s")
    label = "" if row.get("label") is None else str(row["label"])
    return _video(
        path.parent,
        str(row["path"]).replace("\\", "/"),
        split=split,
        label=label,
        range_start_s=start,
        range_end_s=end,
    )


def _seconds(value: Any) -> float | None:
    if value in (None, ""):
        return None
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a number of seconds")
    return seconds
