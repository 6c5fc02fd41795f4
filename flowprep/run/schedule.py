"""The loop that keeps workers busy, the same for every executor."""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.records import Failure
from flowprep.run.job import Progress, ShardJob

MAX_ATTEMPTS = 3
"""How often a shard is tried when its worker dies."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A shard is committed."""

    worker: int
    shard: str
    n_samples: int
    failures: list[Failure]


@dataclass(frozen=True, kw_only=True)
class Died:
    """A worker is gone; what it worked on is not committed."""

    worker: int
    detail: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A job ended with an exception."""

    worker: int
    error: Exception


Message = Done | Died | Refused | Progress


class Pool(Protocol):
    """Workers of an executor, numbered from 0. Each runs one job at a time."""

    @property
    def size(self) -> int: ...

    def submit(self, worker: int, job: ShardJob) -> None: ...

    def wait(self, timeout_s: float) -> Iterable[Message]:
        """What has come in; waits at most so long for something to come."""
        ...

    def restart(self, worker: int) -> None:
        """Put a new worker in the place of one that died."""
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


@dataclass
class Outcome:
    """How the jobs of a run ended."""

    done: list[Done] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)  # shard -> why it could not be made


def drive(jobs: Iterable[ShardJob], pool: Pool, on_message: Callable[[Message], None]) -> Outcome:
    """Run every job, longest first, one per worker at a time.

    A shard whose worker dies is tried again, at most MAX_ATTEMPTS times in all. Raises
    FlowprepError when the disk is full or a worker cannot start; other shards are committed or
    untouched then.
    """
    waiting = deque(sorted(jobs, key=lambda job: (-job.n_frames, job.shard)))
    idle, busy = list(range(pool.size)), dict[int, ShardJob]()
    attempts: Counter[str] = Counter()
    outcome = Outcome()
    while waiting or busy:
        while waiting and idle:
            worker = idle.pop(0)
            busy[worker] = waiting.popleft()
            attempts[busy[worker].shard] += 1
            pool.submit(worker, busy[worker])
        for message in pool.wait(0.5):
            on_message(message)
            if isinstance(message, Progress) or message.worker not in busy:
                continue
            job = busy.pop(message.worker)
            idle.append(message.worker)
            if isinstance(message, Done):
                outcome.done.append(message)
            elif isinstance(message, Refused):
                outcome.lost[job.shard] = _refused(message.error)
            else:
                pool.restart(message.worker)
                if attempts[job.shard] < MAX_ATTEMPTS:
                    waiting.append(job)
                else:
                    outcome.lost[job.shard] = (
                        f"its worker died {MAX_ATTEMPTS} times: {message.detail}"
                    )
    return outcome


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
