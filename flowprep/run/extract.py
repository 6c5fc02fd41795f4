"""`flowprep extract`: from a source to a finished dataset."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flowprep import manifest
from flowprep.errors import FlowprepError
from flowprep.records import Failure
from flowprep.run.estimate import planned_bytes
from flowprep.run.held import Hold, held
from flowprep.run.job import PlannedShard
from flowprep.run.jobs import planned_shards
from flowprep.run.pool import Message
from flowprep.run.prepare import Request, Work, config_toml, prepare
from flowprep.run.progress import Display
from flowprep.run.reporting import Progress
from flowprep.run.runlog import logged
from flowprep.run.schedule import Outcome, Schedule
from flowprep.run.stored import load_marks, settled_bytes
from flowprep.run.workplace import Workplace, open_workplace
from flowprep.shard.index import dataset_bytes, gather, load_dataset
from flowprep.shard.layout import Layout
from flowprep.shard.plan import plan_bytes
from flowprep.shard.removed import Removed, removed_bytes
from flowprep.storage import (
    Place,
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
        held(layout, request.out, request.command, display.warn) as hold,
        open_workplace(request.resources, display) as workplace,
    ):
        return _extract(request, layout, display, workplace, hold)


def dataset_layout(out: str) -> Layout:
    """Where the dataset goes. Raises FlowprepError when something else lies there."""
    layout = Layout(place_of(out, "--out").resolve())
    if not layout.internal.is_dir() and _holds_anything(layout.out):
        raise FlowprepError(
            f"--out {out} holds other files", "give a new or empty folder, or a dataset of flowprep"
        )
    if isinstance(layout.out, RemotePath):
        return layout
    nearest = next(path for path in (layout.out, *layout.out.parents) if path.exists())
    if not nearest.is_dir():
        raise FlowprepError(f"--out {out}: {nearest} is a file", "give a folder")
    return layout


def _holds_anything(out: Place) -> bool:
    if isinstance(out, RemotePath):
        return out.is_dir()
    return bool(file_names(out) or folder_names(out))


def _extract(
    request: Request,
    layout: Layout,
    display: Display,
    workplace: Workplace,
    hold: Hold,
) -> Summary:
    work = prepare(request, layout, display, workplace)
    check_space(request, layout, work)
    jobs = planned_shards(layout, work)
    is_finished = not jobs and bool(work.videos.stored) and _is_finished(layout)
    if not is_finished:
        layout.dataset.unlink(missing_ok=True)
        _save_plan(layout, work)
    if not jobs:
        display.note(f"nothing to make: all {len(work.committed)} shards are there")
    make = partial(run_jobs, request, layout, work, jobs, display, workplace, hold)
    outcome = logged(layout, request, work, display, make) if jobs else Outcome()
    return _finalise(layout, work, outcome, is_finished)


def _is_finished(layout: Layout) -> bool:
    """Whether dataset.json is there and the tables are those it vouches for."""
    try:
        files = load_dataset(layout.dataset)["files"]
        return all(sha256_file(path) == files.get(path.name) for path in layout.tables)
    except (OSError, ValueError):
        return False


def _save_plan(layout: Layout, work: Work) -> None:
    """What the run goes by."""
    listed = manifest.to_bytes(work.videos)
    if not work.videos.stored:
        write_whole(layout.manifest, listed, layout.scratch)
    if not layout.removed.exists():
        write_whole(layout.removed, removed_bytes(Removed()), layout.scratch)
    if not layout.config.exists():
        write_whole(layout.config, config_toml(work), layout.scratch)
    classes = "".join(f"{name}\n" for name in work.classes).encode()
    write_whole(layout.classes, classes, layout.scratch)
    if not work.is_stored:
        planned = plan_bytes(work.plan)
        write_whole(layout.plan, planned, layout.scratch)
        if work.is_settled:
            settled = settled_bytes(listed, planned, work.settings)
            write_whole(layout.settled, settled, layout.scratch)


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
    hold: Hold,
) -> Outcome:
    """Let the workers that are asked for make the shards."""
    watch = SpaceWatch(layout.out if isinstance(layout.out, Path) else layout.scratch)

    def check() -> None:
        watch.check()
        hold.check()

    def hear(message: Message) -> None:
        display.on_message(message)
        if isinstance(message, Progress) and message.trouble:
            hold.tell_trouble(message.trouble)

    with display.running(jobs), workplace.open_pool(work.settings, len(jobs)) as pool:
        schedule = Schedule(jobs, pool, hear, request.resources.clip_timeout_s)
        return schedule.run(check)


def _finalise(layout: Layout, work: Work, outcome: Outcome, is_finished: bool) -> Summary:
    """Index and failure list of what is committed; dataset.json when nothing is missing."""
    found = gather(load_marks(layout))
    if not is_finished:
        write_whole(layout.index, found.index, layout.scratch)
        write_whole(layout.failures, found.failures, layout.scratch)
        if not outcome.lost and not outcome.interrupted:
            layout.settled.unlink(missing_ok=True)
            fingerprint = work.settings.fingerprint()
            write_whole(layout.dataset, dataset_bytes(layout, found, fingerprint), layout.scratch)
    return Summary(
        planned=len(work.plan),
        samples=found.n_samples,
        failures=found.failed,
        lost=outcome.lost,
        interrupted=outcome.interrupted,
        frames=found.n_frames,
        flows=found.n_flows,
        tar_bytes=found.tar_bytes,
    )
