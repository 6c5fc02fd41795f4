"""What an export folder holds: what it is made of, and which samples lie in it whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from flowprep.errors import FlowprepError
from flowprep.export.formats import Form
from flowprep.storage import exclusive, local_place, write_whole


class Entry(NamedTuple):
    """A line of `done.txt`."""

    sha256: str  # of the sample in its shard
    n_bytes: int  # of its files
    place: str


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The folder `.flowprep` of an export."""

    out: Path
    done: dict[str, Entry]  # by key

    @property
    def scratch(self) -> Path:
        return self.out / ".flowprep" / "tmp"

    def add(self, key: str, entry: Entry) -> None:
        """The files of a sample are in their place."""
        self.done[key] = entry
        with _done_file(self.out).open("a", encoding="utf-8") as file:
            file.write(_line(key, entry))

    def forget(self, keys: Iterable[str]) -> None:
        """Their files are no more."""
        for key in keys:
            del self.done[key]
        data = "".join(map(_line, self.done, self.done.values())).encode()
        write_whole(_done_file(self.out), data, self.scratch)

    def write_lists(self, lists: Mapping[str, bytes]) -> None:
        """Name -> content; lists of earlier runs that are none of these go."""
        record = self.out / ".flowprep" / "lists.txt"
        before = record.read_text(encoding="utf-8").split() if record.exists() else []
        write_whole(record, "\n".join(sorted({*before, *lists})).encode(), self.scratch)
        for name in set(before) - set(lists):
            (self.out / name).unlink(missing_ok=True)
        for name, data in lists.items():
            write_whole(self.out / name, data, self.scratch)
        write_whole(record, "\n".join(sorted(lists)).encode(), self.scratch)

    def has(self, key: str, sha256: str, place: str, target: Path) -> bool:
        """Whether a sample lies there as it was written: after a power cut files may be short."""
        entry = self.done.get(key)
        if entry is None or (entry.sha256, entry.place) != (sha256, place):
            return False
        return size_bytes(target) == entry.n_bytes


def _line(key: str, entry: Entry) -> str:
    return f"{entry.sha256} {entry.n_bytes} {key} {entry.place}\n"


def size_bytes(path: Path) -> int:
    """Of a file, or of the files in a folder; -1 when there is neither."""
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return path.stat().st_size
    except OSError:
        return -1


@contextlib.contextmanager
def open_ledger(out: str, form: Form, dataset: str) -> Iterator[Ledger]:
    """The ledger of `out`, ours alone; begun when the folder is new or empty.

    Raises FlowprepError when something else lies there, or an export of another form or dataset.
    """
    folder = local_place(out, "--out", "exports are written to folders").resolve()
    _check_place(folder, out)
    (folder / ".flowprep" / "tmp").mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".flowprep" / "lock", out, "export"):
        _check_order(folder, out, {**asdict(form), "dataset": dataset})
        ledger = Ledger(out=folder, done=_done(folder))
        shutil.rmtree(ledger.scratch)
        ledger.scratch.mkdir()
        try:
            yield ledger
        finally:
            shutil.rmtree(ledger.scratch, ignore_errors=True)


def _check_place(folder: Path, out: str) -> None:
    is_ours = (folder / ".flowprep").is_dir()
    if folder.exists() and not folder.is_dir():
        raise FlowprepError(f"--out {out} is a file", "give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_ours:
        raise FlowprepError(
            f"--out {out} holds other files", "give a new or empty folder, or that of an export"
        )


def _check_order(folder: Path, out: str, order: dict[str, object]) -> None:
    """Raise FlowprepError when the folder was begun with another order."""
    path = folder / ".flowprep" / "export.json"
    try:
        first = json.loads(path.read_text(encoding="utf-8"))
        changes = [f"{n}: {first[n]!r} -> {v!r}" for n, v in order.items() if first[n] != v]
    except FileNotFoundError:
        write_whole(path, (json.dumps(order, indent=1) + "\n").encode(), path.parent)
        return
    except (ValueError, TypeError, KeyError) as error:
        raise FlowprepError(f"{path} is damaged: {error}", "give another --out") from error
    if changes:
        raise FlowprepError(
            f"--out {out} was begun as another export: {'; '.join(changes)}",
            "export as it was begun, or give another --out",
        )


def _done_file(folder: Path) -> Path:
    return folder / ".flowprep" / "done.txt"


def _done(folder: Path) -> dict[str, Entry]:
    """Samples that lie there by the ledger. A line that a crash has cut counts as none."""
    try:
        lines = _done_file(folder).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    rows = [line.split(" ") for line in lines]
    return {r[2]: Entry(r[0], int(r[1]), r[3]) for r in rows if len(r) == 4 and r[1].isdecimal()}
