"""Let the stages of a job run at the same time, and tell where the time goes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class StageClock:
    """CPU seconds and wall seconds spent in each stage."""

    def __init__(self) -> None:
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.wall_s: defaultdict[str, float] = defaultdict(float)
        self._taken: tuple[dict[str, float], dict[str, float]] = ({}, {})

    def take(self) -> tuple[dict[str, float], dict[str, float]]:
        """(CPU, wall) seconds per stage since the last call; other threads may go on counting."""
        now = (dict(self.cpu_s), dict(self.wall_s))
        cpu_s, wall_s = (
            {name: seconds - old.get(name, 0) for name, seconds in new.items()}
            for new, old in zip(now, self._taken, strict=True)
        )
        self._taken = now
        return cpu_s, wall_s

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what this thread does inside to stage `name`."""
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu_s[name] += time.thread_time() - cpu
            self.wall_s[name] += time.perf_counter() - wall

    def timed(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, each one's making counted to stage `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                item = next(iterator, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]


class Background(Generic[T]):
    """Run an iterator in a thread of its own, at most `depth` items ahead.

    An exception in it comes out at the consumer. Closing stops the thread.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close:
                close()
            self._put(_END)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False

    def __iter__(self) -> Iterator[T]:
        try:
            while (item := self._queue.get()) is not _END:
                yield item  # type: ignore[misc]
        finally:
            self._stop.set()
            self._thread.join()
        if self._error is not None:
            raise self._error
