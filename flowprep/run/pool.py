"""The contract of executors: what their workers are told, and what they say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from flowprep.config import Settings
from flowprep.errors import StoreDown
from flowprep.processes import machine_bytes
from flowprep.records import Failure, Video
from flowprep.run.reporting import Progress

CLIP_TIMEOUT_S = 600.0
MAX_DEATHS = 6
"""So many workers may die on a job, or in a row without one, before it is given up."""
NOBODY_S = 600.0
"""So long a run waits for a first worker, as while a cluster grows."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker has started and can be given a job. `machine` is where it runs."""

    worker: int
    machine: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """A shard is committed."""

    worker: int
    shard: str
    n_samples: int
    failures: list[Failure]


@dataclass(frozen=True, kw_only=True)
class Died:
    """A worker is gone; what it worked on is not committed. `paths` are the videos it was on."""

    worker: int
    detail: str
    paths: tuple[str, ...] = ()
    with_node: bool = False  # its whole machine is gone


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A job ended with an exception."""

    worker: int
    error: Exception


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Files are probed."""

    worker: int
    videos: list[Video]


Message = Ready | Done | Died | Refused | Probed | Progress


def is_put_off(message: Message) -> bool:
    """Whether the same job may do better later: storage was down for the worker."""
    return isinstance(message, Refused) and isinstance(message.error, StoreDown)


Job = TypeVar("Job", contravariant=True)


class Pool(Protocol[Job]):
    """Workers of an executor, each with a number. Each says when it is ready, and runs one job at a
    time. More may come at any time.
    """

    def submit(self, worker: int, job: Job) -> None: ...

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        """What has come in, and from which worker; waits at most so long for something to come."""
        ...

    def kill(self, worker: int) -> None:
        """End a worker that does not answer; `wait` tells that it died."""
        ...

    def restart(self, worker: int) -> None:
        """Put a new worker in the place of one that died, if the place is still there."""
        ...

    def shortage(self) -> str:
        """What there is for workers and what was asked for, "" when that is never the question."""
        ...

    def close(self) -> None:
        """End all workers at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What a worker is started with."""

    settings: Settings
    device: int | None = None
    threads: int = 1
    engine_options: dict[str, Any] = field(default_factory=dict)
    stall_s: float = CLIP_TIMEOUT_S  # a clip that makes no progress for so long is given up
    memory_bytes: int = 0  # a process may hold so much; 0 = half of its machine's

    @property
    def memory_limit_bytes(self) -> int:
        return self.memory_bytes or machine_bytes() // 2
