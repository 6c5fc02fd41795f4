"""What an export folder holds that the dataset has elsewhere now, or not any more."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowprep.export.formats import Form
from flowprep.export.ledger import Ledger


@dataclass(kw_only=True)
class Stale:
    """Places of samples that earlier runs have made."""

    moved: list[str] = field(default_factory=list)  # deleted: the sample has another place now
    pruned: list[str] = field(default_factory=list)  # deleted: the dataset has no such sample
    left: list[str] = field(default_factory=list)  # the same, but nobody said to delete them


def clear_stale(ledger: Ledger, form: Form, placed: Mapping[str, str], prune: bool) -> Stale:
    """Delete and forget what lies where its sample has its place no more; `placed` is by key.

    Samples that the dataset does not have are kept, unless `prune` says otherwise or another sample
    has their place. Can be interrupted and repeated. Raises OSError.
    """
    found, forgotten = Stale(), list[str]()
    current = {entry.place for key, entry in ledger.done.items() if placed.get(key) == entry.place}
    taken = set(placed.values())
    for key, entry in ledger.done.items():
        if placed.get(key) == entry.place:
            continue
        if key not in placed and not prune and entry.place not in taken:
            found.left.append(entry.place)
            continue
        if entry.place not in current:
            _delete(ledger.out / form.to, f"{entry.place}{form.suffix}")
        (found.moved if key in placed else found.pruned).append(entry.place)
        forgotten.append(key)
    if forgotten:
        ledger.forget(forgotten)
    return found


def _delete(root: Path, name: str) -> None:
    """Files of a sample, and the folder of its class when nothing else is in it."""
    remove(root / name)
    if "/" in name:
        with contextlib.suppress(OSError):
            (root / name).parent.rmdir()


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
