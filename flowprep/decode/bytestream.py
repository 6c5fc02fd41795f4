"""A file as the byte stream that FFmpeg reads from."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from flowprep.errors import ClipError, StoreError
from flowprep.storage import RemotePath, place_of


class ByteStream:
    """A file whose failing reads look like its end, and are kept in `error`.

    An exception inside FFmpeg's read callback is lost up to PyAV 16, and the read tried for ever.
    A place that no file has, which a damaged container may ask for, is answered as FFmpeg's own
    files do: with the negative error number.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.error: Exception | None = None

    def read(self, n_bytes: int) -> bytes:
        try:
            return b"" if self.error else self._file.read(n_bytes)
        except (OSError, StoreError) as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                self.error = error
            return -(error.errno or errno.EIO)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _open_object(place: RemotePath) -> IO[bytes]:
    try:
        file = place.open("rb")
    except FileNotFoundError as error:
        raise ClipError("missing", f"{place}: {error.strerror}") from error
    except OSError as error:
        raise ClipError("unreadable", f"{place}: {error.strerror}") from error
    if file.seek(0, os.SEEK_END) == 0:
        raise ClipError("empty-file", f"{place} has 0 bytes")
    return file


def _open_regular(path: str) -> IO[bytes]:
    place = place_of(path, "path")
    if isinstance(place, RemotePath):
        return _open_object(place)
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise ClipError("unreadable", f"{path} is not a regular file")
        if info.st_size == 0:
            raise ClipError("empty-file", f"{path} has 0 bytes")
        return open(path, "rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClipError("missing", f"{path}: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise ClipError("unreadable", f"{path}: {error}") from error


@contextmanager
def open_bytes(path: str) -> Iterator[ByteStream]:
    """A regular, non-empty, readable file. A read that failed wins over whatever came of it."""
    with _open_regular(path) as file:
        source = ByteStream(file)
        try:
            yield source
        except ClipError:
            if source.error is None:
                raise
        if isinstance(source.error, StoreError):
            raise source.error
        if source.error is not None:
            raise ClipError("unreadable", f"{path}: {source.error}") from source.error
