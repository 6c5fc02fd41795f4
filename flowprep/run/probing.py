"""Probe videos in parallel; a file that kills or stops the prober costs only itself."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from flowprep.cell import Cell, Death
from flowprep.decode.base import get_decoder
from flowprep.errors import ClipError, FlowprepError, StoreError
from flowprep.processes import (
    end_with_parent,
    kill_pool,
    machine_bytes,
    process_pool,
    watch_memory,
)
from flowprep.records import Video
from flowprep.run.pool import (
    CLIP_TIMEOUT_S,
    MAX_DEATHS,
    NOBODY_S,
    Died,
    Message,
    Pool,
    Probed,
    Refused,
    is_put_off,
)
from flowprep.storage import Place, join

BATCH = 16
FEW = 4
"""So few files are probed one by one: starting many processes would take longer."""


@dataclass(frozen=True, kw_only=True)
class ProbeLimits:
    """How many processes probe, and what a file may take of each."""

    n_workers: int
    stall_s: float = CLIP_TIMEOUT_S
    memory_bytes: int = 0  # 0 = half of the machine's

    @property
    def memory_limit_bytes(self) -> int:
        return self.memory_bytes or machine_bytes() // 2


Reader = Mapping[str, Any]
"""Who reads the source, as `get_decoder` takes it."""
OF_VIDEOS: Reader = {}


def probe_one(root: Place, video: Video, reader: Reader = OF_VIDEOS) -> Video:
    """The video with its `media`, or with the reason it cannot be used."""
    try:
        return replace(video, media=get_decoder(**reader).probe(str(join(root, video.path))))
    except ClipError as error:
        return replace(video, reason=error.reason, message=error.below(root).message)


def _probe_batch(root: Place, videos: list[Video], reader: Reader) -> list[Video]:
    return [probe_one(root, video, reader) for video in videos]


def probe_all(
    root: Place, limits: ProbeLimits, videos: list[Video], reader: Reader = OF_VIDEOS
) -> Iterator[Video]:
    """Every video probed, in the order they finish."""
    suspects = videos
    if len(videos) > FEW:
        suspects = []
        for some in _windows(videos, BATCH * limits.n_workers * 64):
            yield from _probe_together(root, limits, some, suspects, reader)
    yield from _probe_apart(root, limits, suspects, reader)


def _windows(videos: list[Video], size: int) -> Iterator[list[Video]]:
    iterator = iter(videos)
    while part := list(islice(iterator, size)):
        yield part


def _probe_together(
    root: Place,
    limits: ProbeLimits,
    videos: list[Video],
    suspects: list[Video],
    reader: Reader,
) -> Iterator[Video]:
    """Those whose process did not die or stop; `suspects` gets the others."""
    with process_pool(limits.n_workers, limits.memory_limit_bytes) as pool:
        parts = _windows(videos, BATCH)
        asked = {pool.submit(_probe_batch, root, part, reader): part for part in parts}
        while asked:
            for future in _ended(pool, asked, limits.stall_s):
                part = asked.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    suspects += part


def _ended(
    pool: ProcessPoolExecutor, asked: Iterable[Future[list[Video]]], stall_s: float
) -> set[Future[list[Video]]]:
    """Some that have ended: when none does for too long, all, by force."""
    ended, _ = wait(asked, stall_s, FIRST_COMPLETED)
    if not ended:
        kill_pool(pool)
        ended, _ = wait(asked)
    return ended


def _probe_apart(
    root: Place, limits: ProbeLimits, videos: list[Video], reader: Reader
) -> Iterator[Video]:
    """One by one, in a process that each may end."""
    with contextlib.closing(_Apart(root, limits, reader)) as apart:
        yield from map(apart.probe, videos)


class _Apart:
    """Probes in a process of its own, which is started again when a file has ended it."""

    def __init__(self, root: Place, limits: ProbeLimits, reader: Reader) -> None:
        self._cell = Cell(_serve, (root, limits.memory_limit_bytes, reader), limits.stall_s)

    def probe(self, video: Video) -> Video:
        """Raises StoreError, which is not about the video."""
        answer: Video | Death | StoreError = self._cell.ask(video)
        if isinstance(answer, StoreError):
            raise answer
        if isinstance(answer, Death):
            return replace(video, reason=answer.reason, message=answer.message)
        return answer

    def close(self) -> None:
        self._cell.end()


def _serve(root: Place, memory_bytes: int, reader: Reader, pipe: Connection) -> None:
    """Probe the videos that come through the pipe until it closes."""
    end_with_parent()
    watch_memory(memory_bytes)
    with contextlib.suppress(EOFError):
        while True:
            video: Video = pipe.recv()
            pipe.send(None)  # it has begun
            try:
                pipe.send(probe_one(root, video, reader))
            except StoreError as error:
                pipe.send(error)


class Prober:
    """A worker that probes batches of files, each in a process that it may end."""

    def __init__(self, root: Place, limits: ProbeLimits, reader: Reader, number: int) -> None:
        self._number, self._apart = number, _Apart(root, limits, reader)

    def run(self, videos: list[Video], report: object) -> Message:
        """Probed, or Refused when storage does not serve."""
        try:
            return Probed(worker=self._number, videos=[self._apart.probe(v) for v in videos])
        except StoreError as error:
            return Refused(worker=self._number, error=error)


def batches(videos: list[Video]) -> list[list[Video]]:
    """What a worker is asked at a time."""
    return list(_windows(videos, BATCH))


def probe_by(pool: Pool[list[Video]], videos: list[Video]) -> Iterator[Video]:
    """Every video probed by workers that are `Prober`s, in the order they finish.

    Raises FlowprepError when there is nobody to do it for long, or they die again and again.
    """
    waiting, idle = deque(batches(videos)), deque[int]()
    busy: dict[int, list[Video]] = {}
    n_deaths, manned_s = 0, time.monotonic()
    while waiting or busy:
        while waiting and idle:
            worker = idle.popleft()
            busy[worker] = waiting.popleft()
            pool.submit(worker, busy[worker])
        for worker, message in pool.wait(0.5):
            if isinstance(message, Died):
                pool.restart(worker)
                n_deaths += not message.with_node
                waiting.extendleft([busy.pop(worker)] if worker in busy else [])
                idle = deque(other for other in idle if other != worker)
            elif isinstance(message, Refused):
                n_deaths += 1
                if n_deaths == MAX_DEATHS or not is_put_off(message):
                    raise message.error
                waiting.append(busy.pop(worker))
                idle.append(worker)
            else:
                n_deaths, manned_s = 0, time.monotonic()
                yield from message.videos if isinstance(message, Probed) else []
                busy.pop(worker, None)
                idle.append(worker)
        if busy or idle:
            manned_s = time.monotonic()
        _require_probers(pool, n_deaths, manned_s)


def _require_probers(pool: Pool[list[Video]], n_deaths: int, manned_s: float) -> None:
    if n_deaths >= MAX_DEATHS:
        raise FlowprepError(
            f"{MAX_DEATHS} workers in a row died while they probed", "see the logs of Ray"
        )
    if time.monotonic() - manned_s > NOBODY_S:
        raise FlowprepError(
            f"no worker could be started for {NOBODY_S:g} s: {pool.shortage()}",
            "see that the cluster has cores that are free, and run the same command again",
        )
