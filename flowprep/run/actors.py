"""Executor `ray`: workers as actors, on this machine or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError

from flowprep.run.executors import Berth
from flowprep.run.machine import describe_machine
from flowprep.run.pool import Died, Message, Ready
from flowprep.run.ray import on_node, our_node, stopped
from flowprep.run.reporting import Progress


class _Mailbox:
    """Holds progress until the driver fetches it."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, Progress]] = []

    def put(self, worker: int, message: Progress) -> None:
        self._messages.append((worker, message))

    def drain(self) -> list[tuple[int, Progress]]:
        messages, self._messages = self._messages, []
        return messages


class _Actor:
    """A worker in an actor process."""

    def __init__(self, number: int, berth: Berth, mailbox: Any) -> None:
        self._number, self._mailbox = number, mailbox
        self._worker = berth.start(number)

    def ready(self) -> Message:
        return Ready(worker=self._number, machine=describe_machine())

    def run(self, job: object) -> Message:
        message: Message = self._worker.run(job, self._report)
        return message

    def _report(self, progress: Progress) -> None:
        ray.get(self._mailbox.put.remote(self._number, progress))


class RayPool:
    """One actor per berth."""

    def __init__(self, berths: Iterable[Berth]) -> None:
        self._actor_class = ray.remote(max_restarts=0)(_Actor)
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=on_node(our_node()))(_Mailbox)
        self._mailbox = mailbox.remote()
        self._running: dict[Any, int] = {}  # what workers were asked for -> the worker
        self._berths: dict[int, Berth] = {}
        self._actors: dict[int, Any] = {}
        self._n_added = 0
        for berth in berths:
            self.add(berth)

    def add(self, berth: Berth) -> int:
        """Start one more worker, and tell its number."""
        number = self._n_added
        self._n_added += 1
        self._berths[number] = berth
        self.restart(number)
        return number

    def drop(self, worker: int) -> None:
        """Forget a worker whose node is gone."""
        ray.kill(self._actors.pop(worker))
        del self._berths[worker]
        self._running = {ref: number for ref, number in self._running.items() if number != worker}

    def restart(self, worker: int) -> None:
        berth = self._berths[worker]
        where: dict[str, Any] = {"num_cpus": berth.cpus, "num_gpus": berth.gpu_share}
        if berth.node_id is not None:
            where["scheduling_strategy"] = on_node(berth.node_id)
        with stopped():
            actor = self._actor_class.options(**where).remote(worker, berth, self._mailbox)
            self._running[actor.ready.remote()] = worker
        self._actors[worker] = actor

    def submit(self, worker: int, job: object) -> None:
        with stopped():
            self._running[self._actors[worker].run.remote(job)] = worker

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        if not self._running:
            time.sleep(timeout_s)
            return []
        with stopped():
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
            workers = {reference: self._running.pop(reference) for reference in ready}
            ended = [(worker, self._result(worker, ref)) for ref, worker in workers.items()]
            told = ray.get(self._mailbox.drain.remote())
        return [*told, *ended]

    def _result(self, worker: int, reference: Any) -> Message:
        try:
            message: Message = ray.get(reference)
        except RayError as error:
            ray.kill(self._actors[worker])  # it may only be out of reach, and would keep its place
            return Died(worker=worker, detail=str(error).splitlines()[0])
        return message

    def kill(self, worker: int) -> None:
        ray.kill(self._actors[worker])

    def shortage(self) -> str:
        free = ray.available_resources()
        return f"{free.get('CPU', 0):g} cores and {free.get('GPU', 0):g} GPUs free in the cluster"

    def close(self) -> None:
        for actor in [*self._actors.values(), self._mailbox]:
            ray.kill(actor)
