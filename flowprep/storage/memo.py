"""What a store has just told, so that it is not asked twice in one breath."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")
FRESH_S = 5.0


class Recent(Generic[T]):
    """The last few answers, by URL, each for FRESH_S. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._told: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def get(self, url: str) -> T | None:
        with self._lock:
            told_s, answer = self._told.get(url, (0.0, None))
        return answer if answer is not None and time.monotonic() - told_s < FRESH_S else None

    def keep(self, url: str, answer: T) -> None:
        with self._lock:
            self._told[url] = (time.monotonic(), answer)
            self._told.move_to_end(url)
            while len(self._told) > self._most:
                self._told.popitem(last=False)

    def forget(self, url: str) -> None:
        """All that is this or above or below it."""
        with self._lock:
            for one in [u for u in self._told if f"{u}/".startswith(url) or url.startswith(u)]:
                del self._told[one]
