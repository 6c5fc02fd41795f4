"""Objects of any storage that fsspec reaches by a URL, as paths: s3://, gs://, hf:// and others.

Only what object storage does in one step is offered: an object is written whole or not at all, and
there are no folders, only names that begin alike. Every request is tried again while the trouble
may pass (see trouble.attempt for what is raised when it does not).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from flowprep.storage.blocks import ObjectFile
from flowprep.storage.systems import About, about_of, file_system
from flowprep.storage.trouble import attempt, refused_write

PART_BYTES = 50 << 20
"""s3fs uploads larger objects in such parts, and their ETag is made of the parts' hashes."""


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
        """Size and time of the object. Raises FileNotFoundError where none is, OSError."""
        info = attempt(self._info, self.url)
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no such object", self.url)
        return about_of(info)

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
            return str(attempt(self._info, self.url)["type"])
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
        return dict(sorted(found.items()))

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
        """Bytes start..stop-1."""
        return bytes(attempt(lambda: self.fs.cat_file(self.key, start=start, end=stop), self.url))

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        """The object as a file that is read in blocks, the next one ahead of time."""
        assert mode == "rb", "objects are written whole"
        about = self.about()
        return cast(IO[bytes], ObjectFile(self.url, about, self.read_range))

    def write_bytes(self, data: bytes) -> None:
        """Put an object; it is there when the store has told its size and hash.

        Raises StoreError when nothing may be written there.
        """

        def put() -> None:
            self.fs.pipe_file(self.key, data)
            self._confirm(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest, data)

        self._write(put)

    def upload(self, local: Path) -> None:
        """Put a file there, as `write_bytes`."""

        def put() -> None:
            self.fs.put_file(str(local), self.key)
            self._confirm(local.stat().st_size, lambda: etag_of(local), local)

        self._write(put)

    def _write(self, put: Any) -> None:
        try:
            attempt(put, self.url)
        except PermissionError as error:
            raise refused_write(error, self.url) from error

    def _confirm(self, size_bytes: int, etag: Any, source: bytes | Path) -> None:
        """Raise OSError unless the store has what was sent: by its ETag, or read back."""
        about = about_of(self.fs.info(self.key))
        if about.size_bytes != size_bytes:
            raise OSError(f"{self.url} has {about.size_bytes} bytes of {size_bytes} sent")
        if about.etag == etag():
            return
        opened = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with self.open() as there, opened as sent:
            if _sha256(there) != _sha256(sent):
                raise OSError(f"{self.url} does not hold what was sent")

    def create(self, data: bytes) -> bool:
        """Put an object unless one is there; whether it was put. Not every store can promise it."""

        def put() -> bool:
            try:
                self.fs.pipe_file(self.key, data, mode="create")
            except FileExistsError:
                return False
            return True

        try:
            return attempt(put, self.url)
        except PermissionError as error:
            raise refused_write(error, self.url) from error

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
        self._write(lambda: self.fs.cp_file(self.key, target.key))
        self.unlink(missing_ok=True)
        return target

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: object storage has no folders."""

    def rmdir(self) -> None:
        """Nothing: a folder without objects is none."""


def etag_of(path: Path) -> str:
    """What S3 tells of a file that was put in one piece, or in parts of PART_BYTES."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < 2 * PART_BYTES:
            return hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
        parts = [
            hashlib.md5(part, usedforsecurity=False).digest()
            for part in iter(lambda: file.read(PART_BYTES), b"")
        ]
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _sha256(file: Any) -> bytes:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.digest()
