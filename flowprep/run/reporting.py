"""What a job says of itself while it runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flowprep.run.overlap import StageClock
from flowprep.run.stages import ClipTask

T = TypeVar("T")
REPORT_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a job has done since its last report, and the clips it is on."""

    shard: str
    counts: dict[str, int] = field(default_factory=dict)  # clips, failures, flows, identical
    cpu_s: dict[str, float] = field(default_factory=dict)  # per stage
    wall_s: dict[str, float] = field(default_factory=dict)
    doing: tuple[str, ...] = ()  # keys of the clips that have begun and not ended
    trouble: str = ""  # why the worker's heartbeat cannot be written


Report = Callable[[Progress], None]


class Reporter:
    """Adds counts up and sends them on now and then, with the stage times. Any thread may use it.

    That a clip begins is sent before its first byte is read: whatever it does to this process,
    others know.
    """

    def __init__(self, shard: str, clock: StageClock, report: Report) -> None:
        self._shard, self._clock, self._report = shard, clock, report
        self._counts: Counter[str] = Counter()
        self._doing: dict[str, None] = {}
        self._sent = time.monotonic()
        self._lock = threading.Lock()

    def begin(self, tasks: Iterable[ClipTask]) -> Iterator[ClipTask]:
        """The tasks, each told of when it is asked for."""
        for task in tasks:
            with self._lock:
                self._doing[task.clip.key] = None
                self._send()
            yield task

    def end(self, key: str, **counts: int) -> None:
        """The clip is made, or has failed."""
        with self._lock:
            self._doing.pop(key, None)
        self.add(**counts)

    def alive(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each one a sign of life."""
        for item in items:
            self.add()
            yield item

    def add(self, **counts: int) -> None:
        with self._lock:
            self._counts.update(counts)
            if time.monotonic() - self._sent > REPORT_EVERY_S:
                self._send()

    def pass_on(self, progress: Progress) -> None:
        """What another process has done for this job."""
        with self._lock:
            self._report(replace(progress, doing=tuple(self._doing)))
            self._sent = time.monotonic()

    def flush(self) -> None:
        with self._lock:
            self._send()

    def _send(self) -> None:
        cpu_s, wall_s = self._clock.take()
        progress = Progress(
            shard=self._shard,
            counts=dict(self._counts),
            cpu_s=cpu_s,
            wall_s=wall_s,
            doing=tuple(self._doing),
        )
        self._report(progress)
        self._counts.clear()
        self._sent = time.monotonic()
