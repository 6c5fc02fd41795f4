"""From the plan to jobs: clips get their frame times when a worker takes their shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from flowprep.clips import clips_of
from flowprep.records import Clip, Video
from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.members import have_cls
from flowprep.run.prepare import Work
from flowprep.run.stages import ClipTask
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow


def planned_shards(layout: Layout, work: Work) -> list[PlannedShard]:
    """The shards that are left; finished samples are kept."""
    jobs = _Jobs(layout, work)
    n_frames, n_pairs = _totals(work)
    n_clips = np.bincount(work.plan.shard_numbers, minlength=len(work.plan.shards))
    number = {shard: number for number, shard in enumerate(work.plan.shards)}
    return [
        PlannedShard(
            shard=shard,
            n_frames=int(n_frames[number[shard]]),
            n_clips=int(n_clips[number[shard]]),
            n_pairs=int(n_pairs[number[shard]]),
            build=partial(jobs.build, shard),
        )
        for shard in work.todo
    ]


def _totals(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Frames of each shard of the plan, and pairs of frames that are left to make."""
    plan = work.plan
    n_frames = plan.n_frames
    n_pairs = np.maximum(n_frames - 1, 0)
    for shard in {*work.again, *work.failed}:
        settled = work.again.get(shard, frozenset()) | {f.key for f in work.failed.get(shard, [])}
        places = plan.places(shard)
        n_pairs[places] *= [row.key not in settled for row in plan.rows(places)]
    size, shards = len(plan.shards), plan.shard_numbers
    sums = (np.bincount(shards, weights=each, minlength=size) for each in (n_frames, n_pairs))
    frames, pairs = sums
    return frames, pairs


class _Jobs:
    """Builds the jobs of a run."""

    def __init__(self, layout: Layout, work: Work) -> None:
        self._layout, self._work = layout, work
        self._class_index = {name: i for i, name in enumerate(work.classes)}
        self._bare = have_cls(layout) is False

    def build(self, shard: str) -> ShardJob:
        work = self._work
        rows, found = rows_with_clips(work, work.plan.places(shard))
        told = {row.key: self._tar_label(row) for row in rows}
        return ShardJob(
            shard=shard,
            root=work.source.root,
            out=self._layout.out,
            settings=work.settings,
            tasks=[_task(row, told[row.key], *one) for row, one in zip(rows, found, strict=True)],
            labels={row.key: row.label for row in rows if row.label != told[row.key]},
            class_index=self._class_index,
            versions=work.versions,
            keep=work.again.get(shard, frozenset()),
            failed=work.failed.get(shard, []),
        )

    def _tar_label(self, row: PlanRow) -> str:
        """The label that the sample's own json and .cls shall tell: where the samples have no .cls
        none; otherwise what it told before, or the label of the plan.
        """
        return self._work.tar_labels.get(row.key, "" if self._bare else row.label)


Found = tuple[Video | None, Clip | None]
"""A clip and its video; None when they are no longer in the source."""


def rows_with_clips(work: Work, places: np.ndarray) -> tuple[list[PlanRow], list[Found]]:
    """Rows of the plan, and what they are made from."""
    rows = work.plan.rows(places)
    firsts = work.video_places[places].tolist()
    return rows, [_found(work, row, first) for row, first in zip(rows, firsts, strict=True)]


def _found(work: Work, row: PlanRow, first: int) -> Found:
    video = None
    for video in _of_path(work, row.path, first):
        for clip in clips_of(video, work.settings):
            if clip.key == row.key:
                return video, clip
    return video, None


def _of_path(work: Work, path: str, first: int) -> Iterator[Video]:
    """The ranges of a file."""
    if first < 0:
        return
    for place in range(first, len(work.videos)):
        video = work.videos[place]
        if video.path != path:
            return
        yield video


def _task(row: PlanRow, label: str, video: Video | None, clip: Clip | None) -> ClipTask:
    if clip is None:
        clip = Clip(
            key=row.key,
            path=row.path,
            number=int(row.key.rpartition("-")[2]),
            label=label,
            split=row.split,
            source_index=np.empty(0, np.int64),
            reason="missing",
            message="no longer in the source",
        )
    return ClipTask(
        clip=replace(clip, label=label),
        media=video.media if video else None,
        size_bytes=video.size_bytes if video else -1,
        mtime_ns=video.mtime_ns if video else -1,
    )


def refused(work: Work) -> list[Clip]:
    """Clips of which it is known that they cannot be made."""
    _, found = rows_with_clips(work, np.flatnonzero(work.plan.n_frames < 2))
    return [clip for _, clip in found if clip and clip.reason]
