"""Objects of any storage that fsspec reaches by a URL, as paths: s3://, gs://, hf:// and others.

Only what object storage does in one step is offered: an object is written whole or not at all, and
there are no folders, only names that begin alike. Every request is tried again while the trouble
may pass (see trouble.attempt for what is raised when it does not).
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from flowprep.storage import sending
from flowprep.storage.blocks import ObjectFile
from flowprep.storage.memo import Recent
from flowprep.storage.systems import About, about_of, file_system
from flowprep.storage.trouble import attempt, refused_write

_infos: Recent[dict[str, Any]] = Recent(256)
_trees: Recent[dict[str, About]] = Recent(1)


@dataclass(frozen=True, order=True)
class RemotePath:
    """The place of an object, or of all whose names begin with it and a slash.

    Raises what `trouble.attempt` does; FlowprepError when the library for the URL is missing.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return RemotePath(str(name) if "://" in str(name) else f"{self.url}/{name}")

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        return posixpath.basename(self.url)

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        return RemotePath(posixpath.dirname(self.url))

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def resolve(self) -> RemotePath:
        return self

    def absolute(self) -> RemotePath:
        return self

    def is_relative_to(self, other: object) -> bool:
        return self == other or self.url.startswith(f"{other}/")

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        if not self.is_relative_to(other):
            raise ValueError(f"{self.url} is not below {other}")
        return PurePosixPath(self.url[len(other.url) + 1 :] or ".")

    @property
    def fs(self) -> Any:
        """The file system of fsspec; threads of a process share it, and its connections."""
        return file_system(self.url, os.getpid())

    @property
    def key(self) -> str:
        """The path in the terms of `fs`."""
        return str(self.fs._strip_protocol(self.url))

    def about(self) -> About:
        """Size and time of the object now. Raises FileNotFoundError where none is, OSError."""
        return self._about(self._asked())

    def _about(self, info: dict[str, Any]) -> About:
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no such object", self.url)
        return about_of(info)

    def _asked(self) -> dict[str, Any]:
        info = attempt(self._info, self.url)
        _infos.keep(self.url, info)
        return info

    def _told(self) -> dict[str, Any]:
        """What was told of it a moment ago, or is now."""
        return _infos.get(self.url) or self._asked()

    def _info(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.fs.info(self.key)
        except FileNotFoundError:
            raise
        except OSError:  # the answer to HEAD has no text: asked for a byte, the store says why
            self.fs.cat_file(self.key, start=0, end=1)
            raise
        return found

    def _kind(self) -> str:
        try:
            return str(self._told()["type"])
        except FileNotFoundError:
            return ""

    def exists(self) -> bool:
        """Whether there is an object, or any whose name begins like this and a slash."""
        return self._kind() != ""

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether any object's name begins like this and a slash."""
        return self._kind() == "directory"

    def tree(self) -> dict[str, About]:
        """Every object below: relative path -> what is told of it; {} where there is none.

        A request for each 1000 objects.
        """
        listed = attempt(lambda: self._listed(deep=True), self.url)
        found = {name: about_of(info) for name, info in listed if info["type"] == "file"}
        found = dict(sorted(found.items()))
        _trees.keep(self.url, found)
        return found

    def told_tree(self) -> dict[str, About]:
        """The same, as it was told a moment ago or is now."""
        told = _trees.get(self.url)
        return self.tree() if told is None else told

    def names(self, kind: Literal["file", "directory"]) -> list[str]:
        """What lies directly in a folder, sorted; [] where there is none."""
        listed = attempt(lambda: self._listed(deep=False), self.url)
        return sorted(name for name, info in listed if info["type"] == kind)

    def _listed(self, deep: bool) -> list[tuple[str, dict[str, Any]]]:
        prefix = f"{self.key}/"
        try:
            found = (
                self.fs.find(self.key, detail=True) if deep else self.fs.ls(self.key, detail=True)
            )
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # a store that says why, as for a bucket that is not
                raise
            return []
        infos = found.values() if deep else found
        named = [(i["name"].rstrip("/")[len(prefix) :], i) for i in infos if i["name"] != prefix]
        return [(name, i) for name, i in named if name and i["name"].startswith(prefix)]

    def read_bytes(self) -> bytes:
        return bytes(attempt(lambda: self.fs.cat_file(self.key), self.url))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start..stop-1. Raises OSError where the object has not as many."""

        def read() -> bytes:
            data = bytes(self.fs.cat_file(self.key, start=start, end=stop))
            if len(data) != stop - start:
                raise OSError(errno.EIO, f"{len(data)} bytes came of {stop - start}")
            return data

        return attempt(read, self.url)

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        """The object as a file that is read in blocks, the next one ahead of time."""
        assert mode == "rb", "objects are written whole"
        about = self._about(self._told())
        return cast(IO[bytes], ObjectFile(self.url, about, self.read_range))

    def write_bytes(self, data: bytes) -> None:
        """Put an object; it is there when the store has told its size and hash.

        Raises StoreError when nothing may be written there.
        """
        self._write(lambda: sending.put(self.fs, self.key, data))

    def upload(self, local: Path, alive: Callable[[], None] = lambda: None) -> None:
        """Put a file there, as `write_bytes`; `alive` is called now and then meanwhile."""
        self._write(lambda: sending.put_file(self.fs, self.key, local, alive))

    def _write(self, put: Callable[[], sending.T]) -> sending.T:
        try:
            return attempt(put, self.url)
        except PermissionError as error:
            raise refused_write(error, self.url) from error
        finally:
            _infos.forget(self.url)
            _trees.forget(self.url)

    def create(self, data: bytes) -> bool:
        """Put an object unless one is there; whether it was put. Not every store can promise it."""

        def put() -> bool:
            try:
                self.fs.pipe_file(self.key, data, mode="create")
            except FileExistsError:
                return False
            return True

        return self._write(put)

    def unlink(self, missing_ok: bool = False) -> None:
        def remove() -> None:
            try:
                self.fs.rm_file(self.key)
            except FileNotFoundError:
                if not missing_ok:
                    raise

        self._write(remove)

    def replace(self, target: RemotePath) -> RemotePath:
        """Copy to `target`, inside the store, and delete this one."""
        target._write(lambda: self.fs.cp_file(self.key, target.key))
        self.unlink(missing_ok=True)
        return target

    def drop_unfinished(self) -> None:
        """End the uploads in parts to anywhere below that nobody will complete any more, where the
        store lets one.
        """
        with suppress(OSError):
            attempt(lambda: sending.drop_unfinished(self.fs, self.key), self.url)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: object storage has no folders."""

    def rmdir(self) -> None:
        """Nothing: a folder without objects is none."""
