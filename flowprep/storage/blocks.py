"""An object of a store as a file: read in blocks, of which the last few are held."""

from __future__ import annotations

import errno
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flowprep.storage.systems import About

BLOCK_BYTES = 4 << 20
MAX_BLOCKS = 8
"""Of an object that is read: 32 MiB are held, so that a video is fetched once, not per opening."""
MAX_OBJECTS = 3

Fetch = Callable[[int, int], bytes]
"""Gets the bytes start..stop-1."""


class ObjectFile(io.RawIOBase):
    """An object, read by blocks of which the last few are held. Openings of one share them."""

    def __init__(self, url: str, about: About, fetch: Fetch) -> None:
        self.name = url
        self._size_bytes = about.size_bytes
        self._blocks = _blocks_of(url, about, fetch)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a place before the first byte")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        stop = min(self._at + len(view), self._size_bytes)
        n_read = 0
        while self._at < stop:
            part = self._blocks.read(self._at, stop)
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
            self._at += len(part)
        return n_read


class _Blocks:
    """Reads blocks of an object by one thread at a time, and the next one in the background."""

    def __init__(self, fetch: Fetch, size_bytes: int) -> None:
        from fsspec.caching import BackgroundBlockCache

        def within(start: int, stop: int) -> bytes:
            return fetch(start, min(stop, size_bytes))

        self._lock = threading.Lock()
        self._cache = BackgroundBlockCache(BLOCK_BYTES, within, size_bytes, MAX_BLOCKS)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes from `start` on, up to `stop` or the end of a block."""
        stop = min(stop, (start // BLOCK_BYTES + 1) * BLOCK_BYTES)
        with self._lock:
            data = bytes(self._cache._fetch(start, stop))
        if len(data) != stop - start:
            raise OSError(errno.EIO, f"{len(data)} bytes came of {stop - start}")
        return data


_recent: OrderedDict[tuple[str, About], _Blocks] = OrderedDict()
_recent_lock = threading.Lock()


def _blocks_of(url: str, about: About, fetch: Fetch) -> _Blocks:
    """Those of the object as it is now."""
    key = (url, about)
    with _recent_lock:
        if key not in _recent:
            _recent[key] = _Blocks(fetch, about.size_bytes)
        _recent.move_to_end(key)
        while len(_recent) > MAX_OBJECTS:
            _recent.popitem(last=False)
        return _recent[key]
