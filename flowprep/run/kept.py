"""The clips that a dataset shall have: what a plan needs of them, without their frame times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from flowprep.clips import clips_of, key_of, whole_lengths
from flowprep.config import Settings
from flowprep.frametimes import unpack
from flowprep.manifest import Manifest
from flowprep.records import Clip
from flowprep.shard.removed import Removed


class PlannedClip(NamedTuple):
    """A clip, as long as it is not made. Like a Clip, but light."""

    key: str
    path: str
    split: str
    label: str
    n_frames: int


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
        lengths = _lengths(part, settings)
        for place, (path, split, label) in enumerate(zip(*names, strict=True)):
            if lengths[place] < 0:
                yield clips_of(part[place], settings)
                continue
            split, label = texts.setdefault(split, split), texts.setdefault(label, label)
            key = key_of(path, 0)
            yield [PlannedClip(key, path, split, label, lengths[place])]


def _lengths(part: Manifest, settings: Settings) -> list[int]:
    """Of the one clip of each video; -1 where there is another number of them, or none."""
    lengths = np.full(len(part), -1, np.int64)
    ranges = part.column("range_start_s"), part.column("range_end_s")
    columns = part.column("time_base"), part.column("reason"), *ranges
    alike: dict[str, list[int]] = {}  # by time base
    for place, (time_base, reason, start_s, end_s) in enumerate(zip(*columns, strict=True)):
        if part.times[place] and not reason and start_s is end_s is None:
            alike.setdefault(time_base, []).append(place)
    end_pts = np.array([0 if end is None else end for end in part.column("end_pts")], np.int64)
    for time_base, places in alike.items():
        times = {place: unpack(packed) for place in places if (packed := part.times[place])}
        some = np.array([place for place, pts in times.items() if len(pts)], np.int64)
        if len(some):
            pts = [times[place] for place in some.tolist()]
            n_frames = np.array([len(one) for one in pts])
            lengths[some] = whole_lengths(
                np.concatenate(pts), n_frames, end_pts[some], Fraction(time_base), settings
            )
    return lengths.tolist()
