"""The status of a dataset as lines for people, and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from flowprep.records import printable
from flowprep.run.presence import Heard
from flowprep.run.progress import duration
from flowprep.run.status import Counts, Status
from flowprep.shard.heartbeat import WorkerBeat

SHOWN = 20
"""So many workers are listed; the rest is counted."""


def status_as_dict(status: Status) -> dict[str, Any]:
    """For JSON. What is not known is null; times are UTC, by the clock of the storage."""
    run, counts, presence = status.presence.run, status.counts, status.presence
    return {
        "out": status.out,
        "state": status.state,
        "run": run
        and {
            **{name: getattr(run.beat, name) for name in ("command", "user", "host", "pid")},
            "since": _utc(run.began_s),
            "heard_s": round(run.age_s, 1),
        },
        "last_sign": None if status.last_sign_s is None else _utc(status.last_sign_s),
        "shards": {
            "done": counts and counts.shards_done,
            "planned": counts and counts.shards,
            "in_work": len(status.in_work),
        },
        "clips": {
            "done": counts and counts.clips_done,
            "planned": counts and counts.clips,
            "failed": status.failed,
            "shards_not_looked_at": status.shards_unseen,
        },
        "videos_probed": status.videos_probed,
        "clips_per_s": round(status.rate("clips"), 3),
        "flows_per_s": round(status.rate("flows"), 3),
        "left_s": None if status.left_s is None else round(status.left_s, 1),
        "workers": [
            {**vars(one.beat), "lost": presence.is_lost(one), "heard_s": round(one.age_s, 1)}
            for one in presence.workers
        ],
        "problems": status.problems,
        "next": advice(status),
    }


def status_lines(status: Status) -> Iterator[str]:
    """For people."""
    yield printable(f"{status.out}: {status.state}")
    yield from _run(status)
    yield from _counted(status, status.counts) if status.counts else _uncounted(status)
    if status.presence.is_on:
        yield from _rates(status)
        yield from _workers(status)
    yield from (printable(f"problem    {problem}") for problem in status.problems)
    if hint := advice(status):
        yield printable(f"next       {hint}")


def _run(status: Status) -> Iterator[str]:
    run = status.presence.run
    if run:
        is_on, beat = status.presence.is_on, run.beat
        who = f"flowprep {beat.command} of {beat.user} on {beat.host}, process {beat.pid}"
        had_s = run.held_s if is_on else beat.age_s
        had = f"{'for' if is_on else 'gone, it had the dataset for'} {duration(had_s)}"
        yield printable(f"run        {who}, {had} (since {_utc(run.began_s)})")
    if status.state in ("interrupted", "damaged") and status.last_sign_s is not None:
        ago = duration(max(0.0, time.time() - status.last_sign_s))
        yield f"last sign  {ago} ago ({_utc(status.last_sign_s)})"


def _counted(status: Status, counts: Counts) -> Iterator[str]:
    n_busy = len(status.in_work)
    more = f", {n_busy:,} in work" if n_busy else ""
    yield f"shards     {counts.shards_done:,} of {counts.shards:,} done{more}"
    n_ended = sum(b.clips_ended for b in status.in_work if b.shard in counts.pairs_todo)
    more = f", {n_ended:,} more in shards that are in work" if n_ended else ""
    yield f"clips      {counts.clips_done:,} of {counts.clips:,} done{more}"
    unseen = f", not counting {status.shards_unseen:,} shards" if status.shards_unseen else ""
    yield f"failed     {status.failed:,} clips of these{unseen}"


def _uncounted(status: Status) -> Iterator[str]:
    doing = "; the source is being listed and probed" if status.presence.is_on else ""
    yield f"plan       none yet{doing}; {status.videos_probed:,} videos probed"


def _rates(status: Status) -> Iterator[str]:
    if not status.workers:
        yield "workers    none at work: the run begins or ends, or they begin"
        return
    clips, flows = status.rate("clips"), status.rate("flows")
    yield f"rate       {clips:.2f} clips/s, {flows:.1f} flows/s, over the last ten minutes"
    if status.left_s is not None:
        yield f"time left  {duration(status.left_s)}"


def _workers(status: Status) -> Iterator[str]:
    all_of_them = status.presence.workers
    if all_of_them:
        hosts = {beat.host for beat in status.workers}
        yield f"workers    {len(status.workers)}, machines {len(hosts)}"
    for one in all_of_them[:SHOWN]:
        lost = status.presence.is_lost(one)
        told = f"not heard of for {duration(one.age_s)}" if lost else _on(one)
        yield printable(f"  {one.beat.worker:<8} {one.beat.host}, process {one.beat.pid}: {told}")
    if len(all_of_them) > SHOWN:
        yield f"  ... and {len(all_of_them) - SHOWN} more, with --json"


def _on(worker: Heard[WorkerBeat]) -> str:
    beat = worker.beat
    since = duration(beat.shard_s + worker.age_s)
    if not beat.shard:
        return f"without a shard for {since}"
    failed = f", {beat.clips_failed} failed" if beat.clips_failed else ""
    return f"{beat.shard} for {since}, {beat.clips_ended} of {beat.clips} clips{failed}"


def advice(status: Status) -> str:
    """What to do next, "" when nothing is to be done."""
    if status.state == "damaged":
        return f"flowprep verify {status.out} tells more; what is damaged can be made again"
    if status.state == "interrupted" and status.is_changing:
        return "a relabel or remove was interrupted: run the same command again, to its end"
    if status.state == "interrupted":
        return "run the same command again: it goes on where it stopped"
    if status.state == "finished" and status.failed:
        return "mend the source and run the same command again with --retry-failed"
    return ""


def _utc(time_s: float) -> str:
    """2026-11-25T09:31:20Z"""
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
