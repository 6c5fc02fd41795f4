"""The real Schedule on workers that only exist in a virtual clock, on nodes that come and go."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from flowprep.run import schedule
from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.pool import Died, Done, Message, Ready
from flowprep.run.reporting import Progress

START_S = 5.0
"""A worker takes so long to be ready once there is room for it."""
LATENCY_S = 0.01
"""From the end of a shard to the driver, and from the driver to the worker."""


class Clock:
    """In the place of the module `time`, for code to which only this passes."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Span:
    """A worker was on a shard from then to then; it committed it, or died on it."""

    worker: int
    shard: str
    from_s: float
    to_s: float
    is_committed: bool


@dataclass
class Seen:
    """What really happened, whatever the driver knows of it."""

    spans: list[Span] = field(default_factory=list)
    lives: list[tuple[int, float, float]] = field(default_factory=list)  # worker, ready from, to
    handed_out: Counter[str] = field(default_factory=Counter)  # how often each shard was
    handed_out_s: float = 0.0  # the last time

    @property
    def committed(self) -> Counter[str]:
        """How often each shard was made."""
        return Counter(span.shard for span in self.spans if span.is_committed)

    @property
    def deaths(self) -> int:
        return sum(not span.is_committed for span in self.spans)

    @property
    def end_s(self) -> float:
        return max(span.to_s for span in self.spans)


@dataclass
class Worker:
    """`life` counts: what was to happen in an earlier life does not."""

    life: int = 0
    node: int | None = None  # None: there is no room for it
    ready_s: float | None = None
    job: ShardJob | None = None
    began_s: float = 0.0


class VirtualPool:
    """Workers on nodes of some slots each. A heap holds what will happen."""

    def __init__(
        self, n_nodes: int, slots: int, cost_s: Callable[[ShardJob], float], clock: Clock
    ) -> None:
        self.clock, self.seen, self.cpu_s = clock, Seen(), 0.0
        self._cost_s, self._slots = cost_s, slots
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._counter = itertools.count()
        self._told: list[tuple[int, Message]] = []
        self._has_ended = False
        self._workers = [Worker() for _ in range(n_nodes * slots)]
        self._unplaced = deque(range(len(self._workers)))
        self._free: dict[int, int] = {}  # node -> slots
        for _ in range(n_nodes):
            self.add_node()

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.clock.now_s + delay_s, next(self._counter), action))

    def add_node(self) -> int:
        node = next(self._counter)
        self._free[node] = self._slots
        self._place()
        return node

    def lose_node(self, node: int) -> None:
        del self._free[node]
        for number, worker in enumerate(self._workers):
            if worker.node == node:
                self._die(number, "its node is lost")

    @property
    def nodes(self) -> list[int]:
        return list(self._free)

    def _place(self) -> None:
        for node in self._free:
            while self._unplaced and self._free[node]:
                number = self._unplaced.popleft()
                self._free[node] -= 1
                self._workers[number].node = node
                self._later(number, START_S, self._be_ready)

    def _later(self, number: int, delay_s: float, action: Callable[..., object], *a: Any) -> None:
        """Unless the worker is dead by then."""
        worker = self._workers[number]
        life = worker.life
        self.after(delay_s, lambda: action(number, *a) if worker.life == life else None)

    def _tell(self, number: int, message: Message) -> None:
        self._told.append((number, message))
        self._has_ended = self._has_ended or not isinstance(message, Progress)

    def _be_ready(self, number: int) -> None:
        self._workers[number].ready_s = self.clock.now_s
        self._tell(number, Ready(worker=number, machine="virtual"))

    def _die(self, number: int, detail: str) -> None:
        worker = self._workers[number]
        if worker.job is not None:
            self._note(number, worker.job, is_committed=False)
        if worker.node in self._free:
            self._free[worker.node] += 1
        self._workers[number] = Worker(life=worker.life + 1)
        worker.life += 1
        if worker.ready_s is None:  # the driver waits for it as before
            self.restart(number)
            return
        self.seen.lives.append((number, worker.ready_s, self.clock.now_s))
        self.after(LATENCY_S, lambda: self._tell(number, Died(worker=number, detail=detail)))

    def submit(self, worker: int, job: ShardJob) -> None:
        self.seen.handed_out_s = self.clock.now_s
        self.seen.handed_out[job.shard] += 1
        if self._workers[worker].ready_s is not None:  # else its death is on its way to the driver
            self._later(worker, LATENCY_S, self._begin, job)

    def _begin(self, number: int, job: ShardJob) -> None:
        worker, cost_s = self._workers[number], self._cost_s(job)
        worker.job, worker.began_s = job, self.clock.now_s
        for i, task in enumerate(job.tasks):
            report = Progress(shard=job.shard, doing=(task.clip.key,), counts={"clips": 1})
            self._later(number, cost_s * i / len(job.tasks), self._tell, report)
        self._later(number, cost_s, self._end, job)

    def _end(self, number: int, job: ShardJob) -> None:
        self._note(number, job, is_committed=True)
        done = Done(worker=number, shard=job.shard, n_samples=len(job.tasks), failures=[])
        self._later(number, LATENCY_S, self._tell, done)

    def _note(self, number: int, job: ShardJob, is_committed: bool) -> None:
        worker, now_s = self._workers[number], self.clock.now_s
        self.seen.spans.append(Span(number, job.shard, worker.began_s, now_s, is_committed))
        worker.job = None

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        """Let time pass until a worker ends something; progress alone wakes nobody, as on Ray."""
        started_s, until_s = time.process_time(), self.clock.now_s + timeout_s
        while not self._has_ended and self._heap and self._heap[0][0] <= until_s:
            self.clock.now_s, _, action = heapq.heappop(self._heap)
            action()
        if not self._has_ended:
            self.clock.now_s = until_s
        told, self._told, self._has_ended = self._told, [], False
        self.cpu_s += time.process_time() - started_s
        return told

    def kill(self, worker: int) -> None:
        self._die(worker, "killed")

    def restart(self, worker: int) -> None:
        self._unplaced.append(worker)
        self._place()

    def close(self) -> None:
        now_s = self.clock.now_s
        alive = [
            (n, w.ready_s, now_s) for n, w in enumerate(self._workers) if w.ready_s is not None
        ]
        self.seen.lives += alive


@dataclass(frozen=True, kw_only=True)
class Churn:
    """A node is there for a random time, and another comes a random time later."""

    mean_life_s: float = math.inf
    mean_away_s: float = 600.0

    def begin(self, pool: VirtualPool, seed: int) -> None:
        generator = random.Random(seed)

        def come(node: int) -> None:
            pool.after(generator.expovariate(1 / self.mean_life_s), lambda: go(node))

        def go(node: int) -> None:
            pool.lose_node(node)
            pool.after(generator.uniform(0, 2 * self.mean_away_s), lambda: come(pool.add_node()))

        for node in pool.nodes if self.mean_life_s < math.inf else []:
            come(node)


STABLE = Churn()


def simulate(
    shards: list[PlannedShard],
    cost_s: Callable[[ShardJob], float],
    *,
    n_nodes: int,
    slots: int,
    churn: Churn = STABLE,
    seed: int = 0,
    on_message: Callable[[Message], None] = lambda _: None,
    interrupt_s: float = math.inf,
) -> tuple[schedule.Outcome, VirtualPool]:
    """Make the shards in virtual time, until the end or an interrupt."""
    clock = Clock()
    pool = VirtualPool(n_nodes, slots, cost_s, clock)
    churn.begin(pool, seed)

    def check() -> None:
        if clock.now_s > interrupt_s:
            raise KeyboardInterrupt

    with mock.patch.object(schedule, "time", clock):
        outcome = schedule.Schedule(shards, pool, on_message, math.inf).run(check)
    pool.close()
    return outcome, pool


def efficiency(seen: Seen) -> dict[str, float]:
    """Shares of the time that workers were there: at work on what they committed, on what they
    died on, and with nothing to do after the last shard was handed out.
    """
    end_s, last_s = seen.end_s, defaultdict[int, float](float)
    there_s = sum(min(to, end_s) - since for _, since, to in seen.lives if since < end_s)
    for span in seen.spans:
        last_s[span.worker] = max(last_s[span.worker], span.to_s)
    tail_s = sum(
        end_s - max(since, seen.handed_out_s, last_s[worker])
        for worker, since, to in seen.lives
        if since < end_s <= to
    )
    spent_s = {is_committed: 0.0 for is_committed in (True, False)}
    for span in seen.spans:
        spent_s[span.is_committed] += span.to_s - span.from_s
    return {
        "hours": end_s / 3600,
        "at work": spent_s[True] / there_s,
        "lost with workers": spent_s[False] / there_s,
        "idle at the end": tail_s / there_s,
    }
