"""Files of this machine: listing, reading, and writing that is either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.storage.names import IMAGE_SUFFIXES, INTERNAL, VIDEO_SUFFIXES


def list_videos(root: Path) -> list[str]:
    """Paths of video files below `root`, relative, "/" between folders, sorted; hidden ones not.

    Links to folders are followed once each, so that a link to a parent does not loop. Raises
    OSError for a folder that cannot be read: its videos would be missing without a word.
    """
    found: list[str] = []
    for folder, _, names in _walk(root):
        below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        found += [below + name for name in names if is_video(name)]
    return sorted(found)


def is_video(path: str) -> bool:
    """Whether a relative path is that of a video, by its name, and nothing in it is hidden."""
    hidden = path.startswith(".") or "/." in path
    return not hidden and path[path.rfind(".") :].lower() in VIDEO_SUFFIXES


def list_image_folders(root: Path) -> list[str]:
    """Folders below `root` that hold images, or no folder: what a tool has begun is listed too,
    unless no folder holds an image.

    Relative, "/" between folders, sorted; hidden ones and datasets not. Links to folders are
    followed once each.
    Raises OSError for a folder that cannot be read.
    """
    found: dict[str, bool] = {}  # folder -> whether it holds images
    for folder, subfolders, names in _walk(root):
        if INTERNAL in subfolders:
            subfolders.clear()
            continue
        has_images = any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
        if has_images or not subfolders:
            found[folder.relative_to(root).as_posix()] = has_images
    found.pop(".", None)
    return sorted(found) if any(found.values()) else []


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of its folders, of its files), from the top; hidden folders not.

    Links to folders are followed once each, so that a link to a parent does not loop. What the
    caller takes out of the folders is not gone through. Raises OSError for one that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        subfolders[:] = sorted(d for d in subfolders if not d.startswith("."))
        yield Path(folder), subfolders, names


def files_below(folder: Path, unread: list[OSError]) -> Iterator[Path]:
    """Everything below that is no folder; links to folders are not followed."""
    for here, folders, names in os.walk(folder, onerror=unread.append):
        links = [name for name in folders if os.path.islink(os.path.join(here, name))]
        yield from (Path(here) / name for name in names + links)


def listed(folder: Path) -> dict[str, tuple[int, int]]:
    """The plain files below a folder: relative path -> size in bytes, time of last change in ns.

    {} where there is no folder. What comes and goes meanwhile may be there or not. Raises OSError
    for what cannot be listed.
    """
    found, unread = {}, list[OSError]()
    for path in files_below(folder, unread):
        with contextlib.suppress(FileNotFoundError):
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                found[path.relative_to(folder).as_posix()] = (about.st_size, about.st_mtime_ns)
    for error in unread:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error
    return found


def stamp(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: of a file, or of a folder with its files.

    Raises OSError.
    """
    about = os.stat(path)
    if not stat.S_ISDIR(about.st_mode):
        return about.st_size, about.st_mtime_ns
    inside = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
    newest = max([about.st_mtime_ns, *(one.st_mtime_ns for one in inside)])
    return sum(one.st_size for one in inside), newest


def _raise(error: OSError) -> None:
    raise error


def oddity(path: Path) -> str:
    """Why a path is not a plain file, "" when it is. Raises OSError when the system does not say.

    Nothing else is opened: a link leads out of the dataset, and a pipe would never end.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'a device or pipe')}, not a file"


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, final: Path) -> None:
    """Flush `temporary` to disk and rename it to `final`, which then exists whole or not at all."""
    flush_to_disk(temporary)
    temporary.replace(final)
    flush_to_disk(final.parent)


def write_whole(path: Path, data: bytes, scratch: Path) -> None:
    """Write a small file by way of `scratch`, a folder on the same file system."""
    temporary = scratch / f"{path.name}.{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(data)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Bytes a user may still write below the nearest existing parent of `folder`."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def exclusive(lock_file: Path, what: str, command: str = "extract") -> Iterator[Callable[[], None]]:
    """Hold a lock that the system drops when this process dies, however it dies; it is not lost.

    Raises FlowprepError when another process holds it.
    """
    import fcntl

    with lock_file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(handle.fileno()), lock_file.stat()):
                raise OSError("the file was removed by the process that held the lock")
        except OSError as error:
            raise FlowprepError(
                f"{what} is in use by another flowprep {command}", "wait for it, or stop it"
            ) from error
        yield lambda: None
