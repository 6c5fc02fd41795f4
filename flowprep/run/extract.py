"""`flowprep extract`: from a source to a finished dataset."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from flowprep import manifest
from flowprep.errors import FlowprepError
from flowprep.records import Clip, Failure, Video
from flowprep.run.estimate import planned_bytes
from flowprep.run.held import held
from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.members import have_cls
from flowprep.run.prepare import Request, Work, config_toml, prepare
from flowprep.run.progress import Display
from flowprep.run.runlog import logged
from flowprep.run.schedule import Outcome, Schedule
from flowprep.run.stages import ClipTask
from flowprep.run.stored import load_marks
from flowprep.run.workplace import Workplace, open_workplace
from flowprep.shard.index import (
    dataset_bytes,
    failures_bytes,
    index_bytes,
    load_dataset,
)
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow, plan_bytes
from flowprep.shard.removed import Removed, removed_bytes
from flowprep.storage import (
    RemotePath,
    file_names,
    folder_names,
    free_bytes,
    place_of,
    sha256_file,
    write_whole,
)

SPARE_BYTES = 64 << 20
"""Room that must be left beyond the estimate, and at any time."""
LOOK_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended, over the whole dataset."""

    planned: int
    samples: int
    failures: list[Failure]
    lost: dict[str, str] = field(default_factory=dict)  # shards that could not be made, and why
    interrupted: bool = False
    frames: int = 0
    flows: int = 0
    tar_bytes: int = 0

    @property
    def reasons(self) -> Counter[str]:
        """Failures by reason."""
        return Counter(failure.reason for failure in self.failures)


def extract(request: Request, display: Display) -> Summary:
    """Make or finish a dataset.

    Raises FlowprepError when the user must act: no videos, another configuration in the folder, no
    room, an engine that is not there. KeyboardInterrupt leaves what is committed; a rerun goes on.
    """
    layout = dataset_layout(request.out)
    with (
        held(layout, request.out) as check_held,
        open_workplace(request.resources, display) as workplace,
    ):
        return _extract(request, layout, display, workplace, check_held)


def dataset_layout(out: str) -> Layout:
    """Where the dataset goes. Raises FlowprepError when something else lies there."""
    layout = Layout(place_of(out, "--out").resolve())
    if not layout.internal.is_dir() and (file_names(layout.out) or folder_names(layout.out)):
        raise FlowprepError(
            f"--out {out} holds other files", "give a new or empty folder, or a dataset of flowprep"
        )
    if isinstance(layout.out, RemotePath):
        return layout
    nearest = next(path for path in (layout.out, *layout.out.parents) if path.exists())
    if not nearest.is_dir():
        raise FlowprepError(f"--out {out}: {nearest} is a file", "give a folder")
    return layout


def _extract(
    request: Request,
    layout: Layout,
    display: Display,
    workplace: Workplace,
    check_held: Callable[[], None],
) -> Summary:
    work = prepare(request, layout, display, workplace)
    check_space(request, layout, work)
    jobs = planned_shards(layout, work)
    listed = manifest.to_bytes(work.videos)
    if jobs or not _is_finished(layout) or layout.manifest.read_bytes() != listed:
        layout.dataset.unlink(missing_ok=True)
        write_whole(layout.manifest, listed, layout.scratch)
        _save_plan(layout, work)
    if not jobs:
        display.note(f"nothing to make: all {len(work.committed)} shards are there")
    make = partial(run_jobs, request, layout, work, jobs, display, workplace, check_held)
    outcome = logged(layout, request, work, display, make) if jobs else Outcome()
    return _finalise(layout, work, outcome)


def _is_finished(layout: Layout) -> bool:
    """Whether dataset.json is there and the tables are those it vouches for."""
    try:
        files = load_dataset(layout.dataset)["files"]
        return all(sha256_file(path) == files.get(path.name) for path in layout.tables)
    except (OSError, ValueError):
        return False


def _save_plan(layout: Layout, work: Work) -> None:
    classes = "".join(f"{name}\n" for name in work.classes).encode()
    if not layout.removed.exists():
        write_whole(layout.removed, removed_bytes(Removed()), layout.scratch)
    if not layout.config.exists():
        write_whole(layout.config, config_toml(work), layout.scratch)
    write_whole(layout.classes, classes, layout.scratch)
    write_whole(layout.plan, plan_bytes(work.rows), layout.scratch)


def check_space(request: Request, layout: Layout, work: Work) -> None:
    """Raise FlowprepError when the shards to make will not fit by a first estimate. What object
    storage takes nobody knows beforehand.
    """
    if isinstance(layout.out, RemotePath):
        return
    needed, free = planned_bytes(work) + SPARE_BYTES, free_bytes(layout.out)
    if work.todo and free < needed:
        raise FlowprepError(
            f"--out {request.out}: {free / 1e9:.2f} GB are free, "
            f"about {needed / 1e9:.2f} GB will be needed",
            "make room, choose another folder, or a smaller --size",
        )


def planned_shards(layout: Layout, work: Work) -> list[PlannedShard]:
    """The shards that are left; finished samples are kept."""
    told = _tar_labels(layout, work)
    videos = {video.path: video for video in work.videos}
    rows = defaultdict[str, list[PlanRow]](list)
    for row in work.rows:
        rows[row.shard].append(row)

    def build(shard: str) -> ShardJob:
        return ShardJob(
            shard=shard,
            root=work.source.root,
            out=layout.out,
            settings=work.settings,
            tasks=[
                _task(row, told[row.key], work.clips.get(row.key), videos.get(row.path))
                for row in rows[shard]
            ],
            labels={r.key: r.label for r in rows[shard] if r.label != told[r.key]},
            class_index={name: i for i, name in enumerate(work.classes)},
            versions=work.versions,
            keep=frozenset(row.key for row in work.retry[shard].samples)
            if shard in work.retry
            else frozenset(),
            failed=work.failed.get(shard, []),
        )

    return [_planned(rows[shard], work, partial(build, shard)) for shard in work.todo]


def _planned(rows: list[PlanRow], work: Work, build: Callable[[], ShardJob]) -> PlannedShard:
    shard = rows[0].shard
    kept = {row.key for row in work.retry[shard].samples} if shard in work.retry else set()
    kept |= {failure.key for failure in work.failed.get(shard, [])}
    return PlannedShard(
        shard=shard,
        n_frames=sum(row.n_frames for row in rows),
        n_clips=len(rows),
        n_pairs=sum(max(0, row.n_frames - 1) for row in rows if row.key not in kept),
        build=build,
    )


def _tar_labels(layout: Layout, work: Work) -> dict[str, str]:
    """Key -> the label that a sample's own json and .cls shall tell: where the samples have no .cls
    none; otherwise what they told before, or the label of the plan.
    """
    bare = have_cls(layout) is False
    return {row.key: work.tar_labels.get(row.key, "" if bare else row.label) for row in work.rows}


def _task(row: PlanRow, label: str, clip: Clip | None, video: Video | None) -> ClipTask:
    if clip is None or video is None:
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


class SpaceWatch:
    """Ends a run before the disk is full."""

    def __init__(self, out: Path) -> None:
        self._out, self._looked_s = out, time.monotonic()

    def check(self) -> None:
        """Look now and then. Raises FlowprepError when next to nothing is left."""
        if time.monotonic() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        if (free := free_bytes(self._out)) < SPARE_BYTES:
            raise FlowprepError(
                f"cannot write the shards: {free / 1e6:.0f} MB are left at {self._out}",
                "make room and run the same command again: it goes on where it stopped",
            )


def run_jobs(
    request: Request,
    layout: Layout,
    work: Work,
    jobs: list[PlannedShard],
    display: Display,
    workplace: Workplace,
    check_held: Callable[[], None] = lambda: None,
) -> Outcome:
    """Let the workers that are asked for make the shards."""
    watch = SpaceWatch(layout.out if isinstance(layout.out, Path) else layout.scratch)

    def check() -> None:
        watch.check()
        check_held()

    with display.running(jobs), workplace.open_pool(work.settings, len(jobs)) as pool:
        schedule = Schedule(jobs, pool, display.on_message, request.resources.clip_timeout_s)
        return schedule.run(check)


def _finalise(layout: Layout, work: Work, outcome: Outcome) -> Summary:
    """Index and failure list of what is committed; dataset.json when nothing is missing."""
    marks = load_marks(layout)
    if not _is_finished(layout):
        write_whole(layout.index, index_bytes(marks), layout.scratch)
        write_whole(layout.failures, failures_bytes(marks), layout.scratch)
    if not outcome.lost and not outcome.interrupted and not _is_finished(layout):
        fingerprint = work.settings.fingerprint()
        write_whole(layout.dataset, dataset_bytes(layout, marks, fingerprint), layout.scratch)
    return Summary(
        planned=len(work.rows),
        samples=sum(len(mark.samples) for mark in marks),
        failures=[failure for mark in marks for failure in mark.failures],
        lost=outcome.lost,
        interrupted=outcome.interrupted,
        frames=sum(row.n_frames for mark in marks for row in mark.samples),
        flows=sum(row.n_flows for mark in marks for row in mark.samples),
        tar_bytes=sum(mark.tar_bytes for mark in marks),
    )
