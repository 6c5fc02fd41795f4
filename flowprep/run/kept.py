"""The clips that a dataset shall have: what a plan needs of them, without their frame times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from flowprep.clips import clips_of, equal_clips, key_of
from flowprep.collector import collector_off
from flowprep.config import Settings
from flowprep.frametimes import unpack
from flowprep.manifest import Manifest
from flowprep.records import I64, Clip
from flowprep.run.progress import Display
from flowprep.shard.plan import PlanRow
from flowprep.shard.removed import Removed


class PlannedClip(NamedTuple):
    """A clip, as long as it is not made. Like a Clip, but light."""

    key: str
    path: str
    split: str
    label: str
    n_frames: int


@collector_off()
def kept_clips(
    videos: Manifest, settings: Settings, removed: Removed
) -> tuple[Manifest, list[PlannedClip]]:
    """The clips that were not removed, and the videos that have such."""
    clips, kept_places = list[PlannedClip](), list[int]()
    for place, some in enumerate(_clips_of_all(videos, settings)):
        left = [clip for clip in some if not removed.has_key(clip.key)]
        clips += [_light(clip) if isinstance(clip, Clip) else clip for clip in left]
        kept_places += [place] if left else []
    if len(kept_places) < len(videos):
        videos = videos.take(kept_places)
    return videos, clips


def _light(clip: Clip) -> PlannedClip:
    return PlannedClip(clip.key, clip.path, clip.split, clip.label, clip.n_frames)


def _clips_of_all(videos: Manifest, settings: Settings) -> Iterator[list[PlannedClip] | list[Clip]]:
    """The clips of each video. Only those that need a closer look are made one by one."""
    texts: dict[str, str] = {}  # each once, however many videos have it
    for part in videos.parts():
        names = (part.column(name) for name in ("path", "split", "label"))
        n_clips, n_frames = _equal_clips(part, settings)
        for place, (path, split, label) in enumerate(zip(*names, strict=True)):
            if not n_clips[place]:
                yield clips_of(part[place], settings)
                continue
            split, label = texts.setdefault(split, split), texts.setdefault(label, label)
            yield [
                PlannedClip(key_of(path, number), path, split, label, n_frames[place])
                for number in range(n_clips[place])
            ]


def _equal_clips(part: Manifest, settings: Settings) -> tuple[list[int], list[int]]:
    """(clips of each video, frames of each of them); 0 clips where a closer look is needed."""
    found = np.zeros((2, len(part)), np.int64)
    ends = part.column("end_pts")
    for time_base, alike in _by_time_base(part).items():
        places = list(alike)
        found[:, places] = equal_clips(
            np.concatenate(list(alike.values())),
            np.array([len(pts) for pts in alike.values()]),
            np.array([ends[place] for place in places], np.int64),
            Fraction(time_base),
            settings,
        )
    return found[0].tolist(), found[1].tolist()


def _by_time_base(part: Manifest) -> dict[str, dict[int, I64]]:
    """The frame times int64 [n_frames] of videos that have some, and no range, by their places."""
    alike: dict[str, dict[int, I64]] = {}
    names = ("time_base", "reason", "range_start_s", "range_end_s")
    columns = (part.column(name) for name in names)
    for place, (time_base, reason, start_s, end_s) in enumerate(zip(*columns, strict=True)):
        packed = part.times[place]
        if packed and not reason and start_s is end_s is None and len(pts := unpack(packed)):
            alike.setdefault(time_base, {})[place] = pts
    return alike


def are_planned(rows: list[PlanRow], said: dict[str, PlannedClip]) -> bool:
    """Whether the rows are these clips, as they are."""
    left = dict(said)
    return len(rows) == len(left) and all(_is_of(row, left.pop(row.key, None)) for row in rows)


def _is_of(row: PlanRow, clip: PlannedClip | None) -> bool:
    return clip is not None and clip[1:] == (row.path, row.split, row.label, row.n_frames)


def tell_settled(
    rows: list[PlanRow], said: dict[str, PlannedClip], committed: set[str], display: Display
) -> None:
    """Finished clips stay as they are, whatever is said of them now."""
    kept = [r for r in rows if r.key in said and _place(said[r.key]) != _place(r)]
    gone = [row.path for row in rows if row.shard in committed and row.key not in said]
    if gone:
        display.note(
            f"{len(gone)} finished clips are not in the source now and stay, {gone[0]} for one"
        )
    if kept:
        was, now = (f"{one.split}/{one.label or '-'}" for one in (kept[0], said[kept[0].key]))
        display.note(
            f"{len(kept)} finished clips keep the label and split they were made with: "
            f"{kept[0].path} is {was}, now it would be {now}"
        )


def _place(clip: PlannedClip | PlanRow) -> tuple[str, str]:
    return clip.split, clip.label
