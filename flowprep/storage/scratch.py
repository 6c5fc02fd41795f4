"""Folders of this machine for what is unfinished."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder of one's own below `parent`, gone afterwards."""
    folder = parent / f"{name}.{uuid.uuid4().hex}"
    handle = _taken(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _taken(folder: Path) -> int:
    """Make a folder with a lock on it that the system drops when this process dies: its handle."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without such locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.is_dir():  # nobody has swept it up before the lock was on it
            return handle
        os.close(handle)


def scratch_of(url: str) -> Path:
    """Where this user's unfinished files for a place in object storage lie on this machine: below
    $FLOWPREP_SCRATCH, or the system's folder for temporary files.
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return _parent() / f"{_prefix()}{digest}"


def _parent() -> Path:
    return Path(os.environ.get("FLOWPREP_SCRATCH") or tempfile.gettempdir())


def _prefix() -> str:
    return f"flowprep-{os.getuid()}-"


def sweep_scratch() -> None:
    """Remove what processes of this user have left in such places that were killed."""
    for place in filter(_is_ours, _parent().glob(f"{_prefix()}*")):
        for folder in place.iterdir():
            with contextlib.suppress(OSError):
                _remove_unlocked(folder)


def _is_ours(place: Path) -> bool:
    """Anyone may make such a name where all write; a link would lead to other folders of ours."""
    about = place.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()


def _remove_unlocked(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
