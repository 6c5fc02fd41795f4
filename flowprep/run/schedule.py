"""The loop that keeps workers busy, the same for every executor."""

from __future__ import annotations

import errno
import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from flowprep.errors import FlowprepError
from flowprep.processes import START_S
from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.pool import (
    CLIP_TIMEOUT_S,
    MAX_DEATHS,
    NOBODY_S,
    Died,
    Done,
    Message,
    Pool,
    Ready,
    Refused,
    is_put_off,
)
from flowprep.run.reporting import Progress

MAX_DOWN = 5
"""So often a worker, or a shard, finds storage down before the run ends, each time for minutes."""
DEATHS_TO_DOUBT_ALL = 3
"""From then on every clip of the shard is made apart, not only those that a worker died on."""


@dataclass
class Outcome:
    """How the jobs of a run ended."""

    done: list[Done] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)  # shard -> why it could not be made
    interrupted: bool = False


@dataclass
class Running:
    """A job that a worker has."""

    planned: PlannedShard
    job: ShardJob
    heard_s: float  # when the worker last said anything
    doing: tuple[str, ...] = ()
    was_killed: bool = False  # by us, as it was stuck

    def hear(self, progress: Progress) -> None:
        self.heard_s, self.doing = time.monotonic(), progress.doing

    def is_stuck(self, stall_s: float) -> bool:
        """Getting ready for the first clip and writing the shard may take longer."""
        patience_s = stall_s if self.doing else max(stall_s, START_S)
        return time.monotonic() - self.heard_s > patience_s


class Schedule:
    """Runs every job, longest first, one per worker at a time, a retry too."""

    def __init__(
        self,
        shards: Iterable[PlannedShard],
        pool: Pool[ShardJob],
        on_message: Callable[[Message], None],
        stall_s: float = CLIP_TIMEOUT_S,
    ) -> None:
        self._pool, self._on_message = pool, on_message
        self._stall_s = stall_s
        self._waiting = deque(sorted(shards, key=_longest_first))
        self._suspects: dict[str, frozenset[str]] = {}  # of a shard that a worker died on
        self._idle, self._running = list[int](), dict[int, Running]()
        self._deaths: Counter[str] = Counter()
        self._downs: Counter[str] = Counter()
        self._deaths_at_start = 0
        self._last_busy_s = time.monotonic()
        self.outcome = Outcome()

    def run(self, check: Callable[[], None]) -> Outcome:
        """Call `check` again and again until all is done, or KeyboardInterrupt ends it.

        Raises FlowprepError when the disk is full or a worker cannot start; other shards are
        committed or untouched then.
        """
        try:
            while self._waiting or self._running:
                self._hand_out()
                for worker, message in self._pool.wait(0.5):
                    self._take(worker, message)
                self._kill_the_stuck()
                self._require_workers()
                check()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        return self.outcome

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            worker = self._idle.pop(0)
            planned = self._waiting.popleft()
            suspects = self._suspects.get(planned.shard, frozenset())
            job = replace(planned.build(), suspects=suspects)
            self._running[worker] = Running(planned, job, time.monotonic())
            self._pool.submit(worker, job)

    def _take(self, worker: int, message: Message) -> None:
        if isinstance(message, Ready):
            self._deaths_at_start = 0
            self._idle.append(worker)
            self._on_message(message)
        elif worker in self._running and isinstance(message, Progress):
            self._running[worker].hear(message)
            self._on_message(message)
        elif worker in self._running and isinstance(message, Done | Refused):
            self._idle.append(worker)
            self._settle(self._running.pop(worker), message)
        elif isinstance(message, Died):
            self._bury(worker, message)

    def _bury(self, worker: int, died: Died) -> None:
        self._pool.restart(worker)
        if worker in self._running:
            running = self._running.pop(worker)
            self._settle(running, _in_full(died, running))
            return
        self._on_message(died)
        if worker in self._idle:
            self._idle.remove(worker)
            return
        self._deaths_at_start += not died.with_node
        if self._deaths_at_start >= MAX_DEATHS and not self._running and not self._idle:
            raise FlowprepError(
                f"{MAX_DEATHS} workers in a row died before they had work: {died.detail}",
                "flowprep engines may tell what is wrong here",
            )

    def _settle(self, running: Running, message: Done | Died | Refused) -> None:
        self._on_message(message)
        shard = running.job.shard
        if isinstance(message, Done):
            self.outcome.done.append(message)
            self._downs.clear()
        elif isinstance(message, Refused) and is_put_off(message):
            self._later(running.planned, message.error)
        elif isinstance(message, Refused):
            self.outcome.lost[shard] = _refused(message.error)
        else:
            self._deaths[shard] += 1
            if self._deaths[shard] == MAX_DEATHS:
                why = f"{MAX_DEATHS} workers died on it, the last one: {message.detail}"
                self.outcome.lost[shard] = why
            else:
                self._suspects[shard] = self._doubted(running)
                insort(self._waiting, running.planned, key=_longest_first)

    def _later(self, planned: PlannedShard, error: Exception) -> None:
        """Storage was down for a worker: its shard comes once more, after all others.

        Raises the error when storage has been down too often since a shard was made.
        """
        self._downs[planned.shard] += 1
        n_workers = len(self._running) + len(self._idle)
        often = self._downs.total() >= MAX_DOWN * n_workers
        if often or self._downs[planned.shard] == MAX_DOWN:
            raise error
        self._waiting.append(planned)

    def _doubted(self, running: Running) -> frozenset[str]:
        """Keys of the clips to be made apart: those that its worker was on, or all."""
        job = running.job
        if self._deaths[job.shard] >= DEATHS_TO_DOUBT_ALL:
            return frozenset(task.clip.key for task in job.tasks)
        return job.suspects | frozenset(running.doing)

    def _kill_the_stuck(self) -> None:
        for worker, running in self._running.items():
            if not running.was_killed and running.is_stuck(self._stall_s):
                running.was_killed = True
                self._pool.kill(worker)

    def _require_workers(self) -> None:
        """Raise FlowprepError when there is work and for long there has been nobody to do it."""
        if self._running or self._idle:
            self._last_busy_s = time.monotonic()
        elif time.monotonic() - self._last_busy_s > NOBODY_S:
            shortage = self._pool.shortage()
            raise FlowprepError(
                f"no worker could be started for {NOBODY_S:g} s{shortage and f': {shortage}'}",
                "see that the machines have the cores and GPUs that were asked for, and run the "
                "same command again: it goes on where it stopped",
            )


def _longest_first(planned: PlannedShard) -> tuple[int, str]:
    return -planned.n_frames, planned.shard


def _in_full(died: Died, running: Running) -> Died:
    detail = "no sign of life for too long" if running.was_killed else died.detail
    doing = set(running.doing)
    paths = dict.fromkeys(t.clip.path for t in running.job.tasks if t.clip.key in doing)
    return replace(died, detail=detail, paths=tuple(paths))


def _refused(error: Exception) -> str:
    """What to say of a job's exception. Raises FlowprepError when no other job can do better."""
    if isinstance(error, FlowprepError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        raise FlowprepError(
            f"cannot write the shards: {error.strerror}",
            "make room and run the same command again: it goes on where it stopped",
        ) from error
    return f"{type(error).__name__}: {error}"
