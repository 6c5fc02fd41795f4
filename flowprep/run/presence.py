"""Who is at work on a dataset, by the heartbeats in it, which any machine can read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from flowprep.shard.heartbeat import MOST_BYTES, Beat, RunBeat, WorkerBeat, parse_beat
from flowprep.shard.layout import Layout
from flowprep.storage import Place, each, listed, read_if_there

SPARE_S = 5.0
"""A heartbeat may come so much late: writing takes time, and stores tell whole seconds."""
MOST_SKEW_S = 900.0
"""Clocks differ by no more than this: object storage refuses requests that do."""
LOOK_EVERY_S = 1.0

B = TypeVar("B", RunBeat, WorkerBeat)


@dataclass(frozen=True)
class Heard(Generic[B]):
    """A heartbeat, and when it was written by the clock of the storage (seconds since 1970)."""

    beat: B
    written_s: float

    @property
    def age_s(self) -> float:
        """As far as the clocks of the storage and of this machine agree."""
        return max(0.0, time.time() - self.written_s)

    @property
    def due_s(self) -> float:
        """When there should be another, by the clock of the storage. One may be missed."""
        return self.written_s + 2 * self.beat.next_s + SPARE_S

    @property
    def began_s(self) -> float:
        return self.written_s - self.beat.age_s

    @property
    def held_s(self) -> float:
        """For so long now."""
        return self.beat.age_s + self.age_s


@dataclass(frozen=True)
class Presence:
    """The run that has the dataset, or was killed when it had, and its workers by number."""

    run: Heard[RunBeat] | None
    is_on: bool
    workers: list[Heard[WorkerBeat]]

    @cached_property
    def alive(self) -> list[Heard[WorkerBeat]]:
        """The workers that are heard of, and whose shard no other has got since.

        Only times of the storage are compared.
        """
        if self.run is None or not self.is_on:
            return []
        last = {w.beat.shard: w for w in sorted(self.workers, key=took_s)}
        return [
            worker
            for worker in self.workers
            if worker.due_s >= self.run.written_s
            and (not worker.beat.shard or worker is last[worker.beat.shard])
        ]

    def is_lost(self, worker: Heard[WorkerBeat]) -> bool:
        return all(worker is not one for one in self.alive)


def took_s(worker: Heard[WorkerBeat]) -> float:
    """When it got its shard."""
    return worker.written_s - worker.beat.shard_s


def look(layout: Layout, tell: Callable[[str], None]) -> Presence:
    """Who is at work. Raises OSError, StoreError; `tell` is told when this takes a while."""
    run, workers = _heard(layout)
    is_on = run is not None and _is_fresh(run)
    if run and not is_on and run.age_s < MOST_SKEW_S:
        is_on = _is_renewed(layout, run, tell)
        run, workers = _heard(layout)
    return Presence(run, is_on and run is not None, workers)


def _heard(layout: Layout) -> tuple[Heard[RunBeat] | None, list[Heard[WorkerBeat]]]:
    """The heartbeats that are there. They may come and go meanwhile."""
    stamps = listed(layout.heartbeats)
    names = [name for name, (size_bytes, _) in stamps.items() if size_bytes <= MOST_BYTES]
    data = each(_read, [layout.heartbeats / name for name in names])
    read = dict(zip(names, data, strict=True))
    run = parse_beat(RunBeat, read.pop(layout.run_beat.name, b""))
    workers = {name: parse_beat(WorkerBeat, data) for name, data in read.items()}
    written_s = {name: mtime_ns / 1e9 for name, (_, mtime_ns) in stamps.items()}
    heard = [Heard(beat, written_s[name]) for name, beat in workers.items() if beat]
    heard.sort(key=lambda one: one.beat.worker)
    return Heard(run, written_s[layout.run_beat.name]) if run else None, heard


def _read(place: Place) -> bytes:
    """b"" when it is gone."""
    return read_if_there(place) or b""


def _is_fresh(heard: Heard[RunBeat]) -> bool:
    """By the clock of this machine; not when its process is of this machine and gone."""
    in_time = heard.written_s - SPARE_S <= time.time() <= heard.due_s
    return in_time and not _is_dead_here(heard.beat)


def _is_dead_here(beat: Beat) -> bool:
    """Whether this machine has no such process: one in a container with its name may have."""
    if beat.host != socket.gethostname():
        return False
    try:
        os.kill(beat.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _is_renewed(layout: Layout, run: Heard[RunBeat], tell: Callable[[str], None]) -> bool:
    """Watch a heartbeat until there is another, which trusts no clock, or should be."""
    patience_s = run.beat.next_s + SPARE_S
    who = f"process {run.beat.pid} on {run.beat.host}"
    tell(f"{who} was last heard of {run.age_s:.0f} s ago: listening for {patience_s:.0f} s")
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
        now = parse_beat(RunBeat, _read(layout.run_beat))
        if now != run.beat:
            return now is not None
    return False
