"""Executor `ray`: actors on this machine or on a cluster. The only module that imports ray."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.processes import watch_memory
from flowprep.run.job import ShardJob
from flowprep.run.machine import describe_machine
from flowprep.run.pool import Died, Message, Ready, WorkerSpec
from flowprep.run.reporting import Progress

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError, RayError


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

    def __init__(self, number: int, spec: WorkerSpec, mailbox: Any) -> None:
        from flowprep.run.worker import Worker

        watch_memory(spec.memory_limit_bytes)
        self._worker, self._mailbox = Worker(number, spec), mailbox

    def ready(self) -> Message:
        return Ready(worker=self._worker.number, machine=describe_machine())

    def run(self, job: ShardJob) -> Message:
        return self._worker.run(job, self._report)

    def _report(self, progress: Progress) -> None:
        ray.get(self._mailbox.put.remote(self._worker.number, progress))


def connect(address: str | None, n_cpus: int | None) -> None:
    """Start Ray on this machine, or join the cluster at `address`."""
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"num_cpus": n_cpus, "include_dashboard": False, "object_store_memory": 100 << 20}
        # Ray would wait without end for a process that was killed before it said hello
        options["_system_config"] = {"prestart_worker_first_driver": False}
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except SystemExit as error:  # Ray's own answer to SIGTERM
        raise KeyboardInterrupt from error
    except Exception as error:  # Ray raises plain ones too, as when its processes start too slowly
        raise FlowprepError(
            f"no Ray answers at {address or 'this machine'}: {error}",
            "check the address, or run on this machine with --executor local",
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray puts its own in the place of ours


@contextlib.contextmanager
def _stopped() -> Iterator[None]:
    """What Ray raises when its own processes are gone."""
    try:
        yield
    except RayError as error:
        raise FlowprepError(
            f"Ray has stopped: {str(error).splitlines()[0]}",
            "see that Ray runs, then run the same command again: it goes on where it stopped",
        ) from error


class RayPool:
    """One actor per spec: with its threads as CPUs, or with a CPU and its share of a GPU."""

    def __init__(self, specs: list[WorkerSpec], gpu_share: float = 0.0) -> None:
        self._specs = specs
        self._on_gpu = gpu_share > 0
        self._actor_class = ray.remote(num_gpus=gpu_share, max_restarts=0)(_Actor)
        mailbox = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox)
        self._mailbox = mailbox.remote()
        self._running: dict[Any, int] = {}  # what workers were asked for -> the worker
        self._actors = [self._start(number) for number in range(len(specs))]

    def _start(self, number: int) -> Any:
        spec = self._specs[number]
        placed = self._actor_class.options(num_cpus=1 if self._on_gpu else spec.threads)
        actor = placed.remote(number, spec, self._mailbox)
        self._running[actor.ready.remote()] = number
        return actor

    def submit(self, worker: int, job: ShardJob) -> None:
        with _stopped():
            self._running[self._actors[worker].run.remote(job)] = worker

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        with _stopped():
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
            workers = {reference: self._running.pop(reference) for reference in ready}
            ended = [(worker, self._result(worker, ref)) for ref, worker in workers.items()]
            told = ray.get(self._mailbox.drain.remote())
        return [*told, *ended]

    def _result(self, worker: int, reference: Any) -> Message:
        try:
            message: Message = ray.get(reference)
        except RayActorError as error:
            return Died(worker=worker, detail=str(error).splitlines()[0])
        except RayError as error:
            ray.kill(self._actors[worker])
            return Died(worker=worker, detail=str(error).splitlines()[0])
        return message

    def kill(self, worker: int) -> None:
        ray.kill(self._actors[worker])

    def restart(self, worker: int) -> None:
        with _stopped():
            self._actors[worker] = self._start(worker)

    def close(self) -> None:
        for actor in [*self._actors, self._mailbox]:
            ray.kill(actor)
        ray.shutdown()


def cluster_size(resource: str) -> int:
    """How many of `CPU` or `GPU` the cluster has."""
    return int(ray.cluster_resources().get(resource, 0))
