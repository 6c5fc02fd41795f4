"""What a manifest knows of the videos of a source, and probing of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import pyarrow.compute as pc

from flowprep.manifest import AT_A_TIME, OF_MEDIA, Manifest
from flowprep.records import Video

SAVE_EVERY_S = 30.0

Probe = Callable[[list[Video]], Iterable[Video]]
"""Probes videos, in any order: fills `media`, or `reason` and `message`."""
AS_SAID = ["path", "size_bytes", "mtime_ns", "label", "split", "range_start_s", "range_end_s"]
FOUND = ["reason", "message", *OF_MEDIA]


def refresh(
    videos: Sequence[Video],
    cached: Manifest,
    probe: Probe,
    save: Callable[[Manifest], None],
    again: bool = False,
) -> Manifest:
    """`videos` with what probing says of each, in the same order; `cached` where that is it.

    What `cached` knows of a file of the same size and time is taken over (with `again`, only what
    could be used). `save` gets what is known so far, now and then.
    """
    said = Manifest.of(videos)
    if _is_all(said, cached, again):
        return cached
    known = _Known(said, cached, again)
    unknown = {_file(v): v for v in videos if not v.reason and not known.has(v)}
    saved_s, wait_s = time.monotonic(), SAVE_EVERY_S
    for video in probe(list(unknown.values())):
        known.add(video)
        if time.monotonic() - saved_s > wait_s:
            started_s = time.monotonic()
            save(known.merged(videos))
            saved_s = time.monotonic()
            wait_s = max(SAVE_EVERY_S, 20 * (saved_s - started_s))
    return known.merged(videos)


def _is_all(said: Manifest, cached: Manifest, again: bool) -> bool:
    """Whether `cached` holds these very videos, and there is none to probe."""
    if not said.columns.select(AS_SAID).equals(cached.columns.select(AS_SAID)):
        return False
    own, has_media = pc.not_equal(said.columns["reason"], ""), cached.columns["codec"].is_valid()
    same = pc.and_(
        *(pc.equal(said.columns[name], cached.columns[name]) for name in ("reason", "message"))
    )
    failed = pc.and_(pc.not_equal(cached.columns["reason"], ""), not again)
    settled = pc.if_else(own, pc.and_not(same, has_media), pc.or_(has_media, failed))
    return bool(pc.all(settled, min_count=0).as_py())


def _file(video: Video) -> tuple[str, int, int]:
    return video.path, video.size_bytes, video.mtime_ns


class _Known:
    """What is known of files: from `cached`, and from probing them now."""

    def __init__(self, said: Manifest, cached: Manifest, again: bool) -> None:
        self._said, self._parts, self._new = said, [cached], list[Video]()
        self._n_known = len(cached)
        names = ("path", "size_bytes", "mtime_ns", "codec", "reason")
        columns = (cached.columns[name].to_pylist() for name in names)
        self._places = {
            (path, size_bytes, mtime_ns): place
            for place, (path, size_bytes, mtime_ns, codec, reason) in enumerate(
                zip(*columns, strict=True)
            )
            if codec is not None or (reason and not again)
        }

    def has(self, video: Video) -> bool:
        return _file(video) in self._places

    def add(self, video: Video) -> None:
        self._places[_file(video)] = self._n_known
        self._n_known += 1
        self._new.append(video)
        if len(self._new) == AT_A_TIME:
            self._pack()

    def _pack(self) -> None:
        self._parts.append(Manifest.of(self._new))
        self._new = []

    def merged(self, videos: Sequence[Video]) -> Manifest:
        """Those of the videos that something is known of."""
        self._pack()
        rows, places = [], []
        for row, video in enumerate(videos):
            place = self._n_known + row if video.reason else self._places.get(_file(video))
            if place is not None:
                rows.append(row)
                places.append(place)
        found = Manifest.joined([*self._parts, self._said]).take(places)
        columns = found.columns
        said = self._said.columns.take(rows)
        for name in AS_SAID:
            columns = columns.set_column(columns.column_names.index(name), name, said[name])
        return Manifest(columns, found.times)
