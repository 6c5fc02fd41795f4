"""Where files lie: a path of this machine, or a URL of object storage. What serves both."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from flowprep.errors import FlowprepError
from flowprep.storage import local
from flowprep.storage.lease import leased
from flowprep.storage.remote import RemotePath

Place = Path | RemotePath
T = TypeVar("T")
P = TypeVar("P", Path, RemotePath, Path | RemotePath)
Stamps = Callable[[str], tuple[int, int]]
PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
NOT_LISTED = (FileNotFoundError, NotADirectoryError, PermissionError)
N_READERS = 32
"""Objects that are asked for at a time."""


def place_of(text: str, flag: str) -> Place:
    """A path, or a RemotePath for a URL. Raises FlowprepError for "" and for chained URLs."""
    if not text:
        raise FlowprepError(f"{flag} is empty", "give a path or URL; . is this folder")
    protocol, separator, rest = text.partition("://")
    if not separator or not PROTOCOL.fullmatch(protocol):
        return Path(text)
    if "::" in text:
        raise FlowprepError(f"{flag} {text}: chained URLs are not supported", "give one URL")
    if protocol in ("file", "local"):
        return Path(rest)
    if not rest.strip("/"):
        raise FlowprepError(f"{flag} {text} names no bucket", f"give {protocol}://BUCKET/FOLDER")
    return RemotePath(f"{protocol}://{rest.rstrip('/')}")


def local_place(text: str, flag: str, why: str) -> Path:
    """The local path. Raises FlowprepError for a URL: `why` ends the sentence."""
    place = place_of(text, flag)
    if isinstance(place, RemotePath):
        raise FlowprepError(f"{flag} {text}: {why}", "give a local or mounted path")
    return place


def file_names(folder: Place) -> list[str]:
    """Names of the files in a folder, sorted; [] where none can be listed."""
    if isinstance(folder, RemotePath):
        return folder.names("file")
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    except NOT_LISTED:
        return []


def folder_names(folder: Place) -> list[str]:
    """Names of the folders in a folder, sorted; [] where none can be listed."""
    if isinstance(folder, RemotePath):
        return folder.names("directory")
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except NOT_LISTED:
        return []


def listed(folder: Place) -> dict[str, tuple[int, int]]:
    """The plain files below a folder: relative path -> size in bytes, time of last change in ns.

    {} where there is none. Of objects that is a request for each 1000. Raises OSError.
    """
    if isinstance(folder, RemotePath):
        return {name: about[:2] for name, about in folder.tree().items()}
    return local.listed(folder)


def each(load: Callable[[Place], T], places: Iterable[Place]) -> Iterator[T]:
    """What `load` makes of each file, or does to it, in order; objects many at a time."""
    some = list(places)
    if not some or isinstance(some[0], Path):
        yield from map(load, some)
        return
    with ThreadPoolExecutor(N_READERS) as pool:
        for start in range(0, len(some), 8 * N_READERS):
            yield from pool.map(load, some[start : start + 8 * N_READERS])


def read_many(places: Iterable[Place]) -> Iterator[bytes]:
    """What each file holds, in order; objects are read many at a time."""
    return each(lambda place: place.read_bytes(), places)


def read_if_there(place: Place) -> bytes | None:
    """What a file holds, None where there is none. Raises OSError."""
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None


def list_videos(root: Place) -> list[str]:
    """Paths of video files below `root`, relative, "/" between folders, sorted; hidden ones not.

    Raises OSError for what cannot be listed: its videos would be missing without a word.
    """
    if isinstance(root, RemotePath):
        return [name for name in root.tree() if local.is_video(name)]
    return local.list_videos(root)


def join(root: Place, path: str) -> Place:
    """Where a path from `root`, or a URL, leads."""
    return place_of(path, "path") if "://" in path else root / path


def stamps(root: Place) -> Stamps:
    """(size in bytes, time of the last change in ns) of what a path from `root` leads to.

    Of objects they are known from one listing of all. Raises OSError where there is none.
    """
    if not isinstance(root, RemotePath):
        return lambda path: local.stamp(path if path.startswith("/") else f"{root}/{path}")
    listed = root.told_tree()

    def told(path: str) -> tuple[int, int]:
        if path not in listed:
            raise FileNotFoundError(errno.ENOENT, "no such object", f"{root}/{path}")
        return listed[path][:2]

    return told


def stamps_of(root: Place, paths: Iterable[str]) -> Stamps:
    """The same for these paths and URLs only; objects are asked for many at a time."""
    far = [p for p in dict.fromkeys(paths) if isinstance(join(root, p), RemotePath)]
    known = dict(zip(far, each(_tried, [join(root, path) for path in far]), strict=True))

    def told(path: str) -> tuple[int, int]:
        found = known[path] if path in known else _tried(join(root, path))
        if isinstance(found, OSError):
            raise found
        return found

    return told


def _tried(place: Place) -> tuple[int, int] | OSError:
    try:
        return stamp(place)
    except OSError as error:
        return error


def stamp(place: Place) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: of a file, or of a folder with its files.

    Raises OSError.
    """
    return place.about()[:2] if isinstance(place, RemotePath) else local.stamp(place)


def size_bytes(place: Place) -> int:
    """Of a file. Raises OSError."""
    return place.about().size_bytes if isinstance(place, RemotePath) else place.stat().st_size


def oddity(place: Place) -> str:
    """Why a path is not a plain file, "" when it is. Raises OSError when the system does not say.

    Nothing else is opened: a link leads out of the dataset, and a pipe would never end.
    """
    if isinstance(place, RemotePath):
        return "" if place.is_file() else "is missing"
    return local.oddity(place)


def plain(place: P) -> P:
    """The path of a plain file. Raises ValueError when it is anything else."""
    if odd := oddity(place):
        raise ValueError(f"{place.name} {odd}")
    return place


def sha256_file(place: Place, start: int = 0, stop: int | None = None) -> str:
    """Hex digest of the bytes start..stop-1."""
    digest = hashlib.sha256()
    with place.open("rb", buffering=0) as file:
        left = (file.seek(0, os.SEEK_END) if stop is None else stop) - start
        file.seek(start)
        while left > 0 and (block := file.read(min(left, 1 << 18))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def read_text(place: Place) -> str:
    """Without a byte order mark. Raises FlowprepError when it is not UTF-8."""
    data = place.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise FlowprepError(
            f"{place.name}, line {number}: not UTF-8", "save it as UTF-8 text"
        ) from error


def publish(temporary: Path, final: Place, alive: Callable[[], None] = lambda: None) -> None:
    """Let `final` hold, whole or not at all, what `temporary` does, which may be gone then.

    `alive` is called now and then while that takes long.
    """
    if isinstance(final, RemotePath):
        final.upload(temporary, alive)
    else:
        local.publish(temporary, final)


def write_whole(place: Place, data: bytes, scratch: Path) -> None:
    """Write a small file, by way of `scratch`, a folder on the same file system."""
    if isinstance(place, RemotePath):
        place.write_bytes(data)
    else:
        local.write_whole(place, data, scratch)


def exclusive(
    lock: Place, what: str, command: str = "extract"
) -> AbstractContextManager[Callable[[], None]]:
    """Hold a lock that nobody else gets while this process lives; gives what checks it is held.

    Raises FlowprepError when another process holds it; so does the check when it was lost.
    """
    if isinstance(lock, RemotePath):
        return leased(lock, what, command)
    return local.exclusive(lock, what, command)


def move(source: Place, target: Place) -> None:
    """Give a file another name, in the place of what has it, for good."""
    if isinstance(source, RemotePath) and isinstance(target, RemotePath):
        source.replace(target)
    elif isinstance(source, Path) and isinstance(target, Path):
        source.replace(target)
        local.flush_to_disk(target.parent)
    else:
        raise TypeError(f"{source} and {target} are not in one storage")


def flush_to_disk(place: Place) -> None:
    """Wait until a file, or a folder's list of names, is on the disk. An object is at once."""
    if isinstance(place, Path):
        local.flush_to_disk(place)


def relative(place: Place, root: Place) -> str:
    """The path from `root`, "/" between folders."""
    if isinstance(place, RemotePath) and isinstance(root, RemotePath):
        return place.relative_to(root).as_posix()
    return Path(str(place)).relative_to(str(root)).as_posix()


def files_below(folder: Place, unread: list[OSError]) -> list[Place]:
    """Everything below that is no folder, sorted; links to folders are not followed.

    `unread` gets what the system says of folders that it does not list.
    """
    if isinstance(folder, RemotePath):
        return [folder / name for name in folder.tree()]
    return sorted(local.files_below(folder, unread))


def exists(place: Place) -> bool:
    """Whether anything has this name, a link that leads nowhere too."""
    return place.exists() if isinstance(place, RemotePath) else os.path.lexists(place)
