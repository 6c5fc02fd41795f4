"""Executor `local`: worker processes on this machine, no Ray."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from flowprep.processes import START_S, end_with_parent, how_it_ended, watch_memory
from flowprep.run.job import ShardJob
from flowprep.run.machine import describe_machine
from flowprep.run.pool import Died, Message, Ready, WorkerSpec


class LocalPool:
    """One process per spec. They end with the process that started them, however it ends."""

    def __init__(self, specs: list[WorkerSpec]) -> None:
        self._specs = specs
        self._context = multiprocessing.get_context("spawn")
        self._starting: dict[int, float] = {}  # workers that are not ready yet, since when
        self._started = [self._start(number) for number in range(len(specs))]

    def _start(self, number: int) -> tuple[SpawnProcess, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(number, self._specs[number], theirs))
        process.start()
        theirs.close()
        self._starting[number] = time.monotonic()
        return process, ours

    def submit(self, worker: int, job: ShardJob) -> None:
        with contextlib.suppress(OSError):  # a dead worker is told by `wait`
            self._started[worker][1].send(job)

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        pipes = {pipe: number for number, (_, pipe) in enumerate(self._started)}
        for ready in wait(list(pipes), timeout_s):
            assert isinstance(ready, Connection)
            yield pipes[ready], self._receive(pipes[ready], ready)
        for worker, since_s in self._starting.items():
            if time.monotonic() - since_s > max(self._specs[worker].stall_s, START_S):
                self.kill(worker)

    def _receive(self, worker: int, pipe: Connection) -> Message:
        try:
            message: Message = pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            process = self._started[worker][0]
            process.join(timeout=5)
            message = Died(worker=worker, detail=how_it_ended(process.exitcode))
        self._starting.pop(worker, None)
        return message

    def kill(self, worker: int) -> None:
        self._started[worker][0].kill()

    def restart(self, worker: int) -> None:
        self._end(worker)
        self._started[worker] = self._start(worker)

    def shortage(self) -> str:
        return ""

    def _end(self, worker: int) -> None:
        process, pipe = self._started[worker]
        process.kill()
        process.join()
        pipe.close()

    def close(self) -> None:
        for process, _ in self._started:
            process.kill()
        for worker in range(len(self._started)):
            self._end(worker)


def _serve(number: int, spec: WorkerSpec, pipe: Connection) -> None:
    """Run the jobs that come through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    watch_memory(spec.memory_limit_bytes)
    from flowprep.run.worker import Worker

    worker = Worker(number, spec)
    pipe.send(Ready(worker=number, machine=describe_machine()))
    with contextlib.suppress(EOFError):
        while True:
            job: ShardJob = pipe.recv()
            pipe.send(worker.run(job, pipe.send))
