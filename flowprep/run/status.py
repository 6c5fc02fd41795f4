"""How far a dataset is, by its commit marks and heartbeats. Opens no shard and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flowprep.run.presence import Presence, look, took_s
from flowprep.run.survey import Survey
from flowprep.shard.heartbeat import WorkerBeat
from flowprep.shard.layout import layout_of
from flowprep.shard.plan import Plan
from flowprep.storage import Place

State = Literal["running", "finished", "interrupted", "damaged"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of a plan, and of its shards that have a mark."""

    shards: int
    shards_done: int
    clips: int
    clips_done: int  # those that failed too
    pairs_todo: dict[str, int]  # shard without a mark -> pairs of frames


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known of a dataset."""

    out: str
    presence: Presence
    is_finished: bool
    is_changing: bool  # a relabel or remove is decided, and not done
    counts: Counts | None  # None before there is a plan
    videos_probed: int  # as far as the manifest is written
    failed: int  # clips of the shards that have a mark,
    shards_unseen: int  # but for so many of them
    last_sign_s: float | None  # of life; since 1970, by the clock of the storage
    problems: list[str]
    in_work: list[WorkerBeat]  # those of workers whose shard has no mark since they took it

    @property
    def state(self) -> State:
        if self.presence.is_on:
            return "running"
        if self.problems:
            return "damaged"
        return "finished" if self.is_finished else "interrupted"

    @property
    def workers(self) -> list[WorkerBeat]:
        """Those that are alive."""
        return [worker.beat for worker in self.presence.alive]

    def rate(self, what: Literal["clips", "flows", "pairs"]) -> float:
        """So many a second, by all workers, over the last minutes of each."""
        beats = [beat for beat in self.workers if beat.window_s > 0]
        return float(sum(getattr(beat, f"window_{what}") / beat.window_s for beat in beats))

    @property
    def left_s(self) -> float | None:
        """Until all pairs are made at this rate; None where that is not known."""
        rate = self.rate("pairs")
        if self.counts is None or not self.counts.pairs_todo or not rate:
            return None
        ended = {beat.shard: beat.pairs_ended for beat in self.workers}
        todo = self.counts.pairs_todo.items()
        return sum(max(0, n_pairs - ended.get(shard, 0)) for shard, n_pairs in todo) / rate


def status_of(out: str | Place, tell: Callable[[str], None]) -> Status:
    """Look at a dataset; `tell` gets a line where that takes a while.

    Raises FlowprepError when none is there, StoreError, OSError.
    """
    layout = layout_of(out)
    presence = look(layout, tell)
    files = Survey(layout)
    dataset, plan = files.dataset(), files.plan()
    failed, n_unseen = (dataset["failures"], 0) if dataset else files.failed()
    signs_s = [ns / 1e9 for ns in files.marks.values()] + [w.written_s for w in presence.workers]
    signs_s += [presence.run.written_s] if presence.run else []
    gaps = [] if presence.is_on else list(_gaps(files, dataset, plan))
    return Status(
        out=str(out),
        presence=presence,
        is_finished=bool(dataset),
        is_changing=files.has(layout.pending.name),
        counts=_counts(plan, set(files.marks)) if plan else None,
        videos_probed=files.n_videos(),
        failed=failed,
        shards_unseen=n_unseen,
        last_sign_s=max(signs_s, default=None),
        problems=files.problems + gaps,
        in_work=list(_in_work(presence, files.marks)),
    )


def _in_work(presence: Presence, marks: dict[str, int]) -> Iterator[WorkerBeat]:
    """A retry has a mark from the beginning; a heartbeat may be older than the end of a shard."""
    for worker in presence.alive:
        if worker.beat.shard and marks.get(worker.beat.shard, 0) / 1e9 < took_s(worker):
            yield worker.beat


def _counts(plan: Plan, marked: set[str]) -> Counts:
    is_done = np.array([shard in marked for shard in plan.shards], bool)
    of_shard, size = plan.shard_numbers, len(plan.shards)
    n_clips = np.bincount(of_shard, minlength=size)
    n_pairs = np.bincount(of_shard, np.maximum(plan.n_frames - 1, 0), size).astype(int)
    todo = zip(plan.shards, n_pairs.tolist(), is_done.tolist(), strict=True)
    return Counts(
        shards=size,
        shards_done=int(is_done.sum()),
        clips=len(plan),
        clips_done=int(n_clips[is_done].sum()),
        pairs_todo={shard: pairs for shard, pairs, done in todo if not done},
    )


def _gaps(files: Survey, dataset: dict[str, Any], plan: Plan | None) -> Iterator[str]:
    """What does not fit together, when nobody is at work."""
    marked = set(files.marks)
    if lost := sorted(set(dataset.get("shards", ())) - marked):
        yield f"{len(lost)} commit marks are missing, that of {lost[0]} for one"
    if marked and not files.has("plan.parquet"):
        yield f"there are {len(marked)} commit marks and no plan"
    if plan is not None and (strange := sorted(marked - set(plan.shards))):
        yield f"{len(strange)} commit marks are of no planned shard, {strange[0]} for one"
