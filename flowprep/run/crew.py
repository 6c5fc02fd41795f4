"""The workers on a cluster: as many as its nodes have room for now."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Protocol

from flowprep.run.executors import Berth
from flowprep.run.nodes import Node
from flowprep.run.pool import Died, Done, Message, Pool, Probed, Ready, Refused, is_put_off
from flowprep.run.roster import Roster

LOOK_EVERY_S = 10.0
ANSWER_EVERY_S = 1.0
"""The same while a node has been asked and has not answered."""
TELL_AFTER_S = 30.0
"""So long nothing is said of a run that has no worker."""


class Workers(Pool[object], Protocol):
    """A pool that can be added to; `ray.RayPool` is one."""

    def add(self, berth: Berth) -> int: ...

    def drop(self, worker: int) -> None:
        """Forget a worker whose node is gone."""
        ...


class Crew:
    """A pool that grows when nodes come, and shrinks when they go.

    `hire(node)` gives all the berths of a node. There are never more workers than jobs left, nor
    than `n_wanted` (0: as many as there is room for). `warn` is told who comes and goes.
    """

    def __init__(
        self,
        workers: Workers,
        roster: Roster,
        hire: Callable[[Node], list[Berth]],
        n_jobs: int,
        n_wanted: int,
        warn: Callable[[str], None],
    ) -> None:
        self._workers, self._roster, self._hire, self._warn = workers, roster, hire, warn
        self._n_left, self._n_wanted = n_jobs, n_wanted
        self._places: dict[int, Node] = {}  # of each worker
        self._ready: set[int] = set()
        self._looked_s = self._busy_s = time.monotonic()
        self._fill()

    def __len__(self) -> int:
        return len(self._places)

    def _fill(self) -> list[Node]:
        """Start the workers that there are room and work for, spread over the nodes."""
        wanted = min(self._n_wanted or self._n_left, self._n_left)
        here = Counter(node.id for node in self._places.values())
        free = [[(n, b) for b in self._hire(n)[here[n.id] :]] for n in self._roster.usable]
        room = [one for each in zip_longest(*free) for one in each if one]
        hired = room[: max(0, wanted - len(self._places))]
        for node, berth in hired:
            self._places[self._workers.add(berth)] = node
        return [node for node, _ in hired]

    def _look(self) -> list[tuple[int, Message]]:
        """See who has come and gone; the workers that have gone with their nodes."""
        self._looked_s = time.monotonic()
        self._roster.look()
        there = {node.id for node in self._roster.nodes}
        gone = {worker: n for worker, n in self._places.items() if n.id not in there}
        died: list[tuple[int, Message]] = []
        for worker, node in gone.items():
            if worker in self._ready:
                detail = f"its node {node} is gone"
                died.append((worker, Died(worker=worker, detail=detail, with_node=True)))
            self._forget(worker)
        for node, n_workers in Counter(gone.values()).items():
            self._warn(f"node {node} is gone: {n_workers} workers fewer")
        for node, n_workers in Counter(self._fill()).items():
            self._warn(f"node {node}: {n_workers} workers more")
        return died

    def _forget(self, worker: int) -> None:
        self._workers.drop(worker)
        self._ready.discard(worker)
        del self._places[worker]

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        coming = list(self._workers.wait(timeout_s))
        has_died = any(isinstance(message, Died) for _, message in coming)
        every_s = LOOK_EVERY_S if self._roster.all_have_answered else ANSWER_EVERY_S
        if has_died or time.monotonic() - self._looked_s > every_s:
            yield from self._look()
        for worker, message in coming:
            if worker in self._places:
                self._note(worker, message)
                yield worker, message
        self._tell_if_idle()

    def _note(self, worker: int, message: Message) -> None:
        if isinstance(message, Died):
            self._ready.discard(worker)
        elif isinstance(message, Ready):
            self._ready.add(worker)
        elif isinstance(message, Done | Refused | Probed) and not is_put_off(message):
            self._n_left -= 1

    def _tell_if_idle(self) -> None:
        if self._ready:
            self._busy_s = time.monotonic()
        elif time.monotonic() - self._busy_s > TELL_AFTER_S:
            self._busy_s = math.inf  # once
            self._warn(f"no worker has started yet: {self.shortage()}; waiting")

    def submit(self, worker: int, job: object) -> None:
        self._workers.submit(worker, job)

    def kill(self, worker: int) -> None:
        self._workers.kill(worker)

    def restart(self, worker: int) -> None:
        if worker in self._places:
            self._workers.restart(worker)

    def shortage(self) -> str:
        nodes = self._roster.usable
        has = f"{sum(n.cpus for n in nodes)} cores and {sum(n.gpus for n in nodes)} GPUs"
        wanted = self._n_wanted or "as many as there is room for"
        told = f"on {len(nodes)} nodes that can be used there are {has}"
        return f"{told}, {self._workers.shortage()}; workers asked for: {wanted}"

    def close(self) -> None:
        self._workers.close()
