"""A dataset that is ours alone, with nothing half done in it."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from flowprep.errors import FlowprepError
from flowprep.run.beating import Tell, beating, once
from flowprep.run.living import finish_pending
from flowprep.shard.commit import finish_swaps
from flowprep.shard.index import Mark, load_dataset, load_mark
from flowprep.shard.layout import Layout, local_layout_of
from flowprep.storage import Place, RemotePath, exclusive, plain, sha256_file


@dataclass(frozen=True)
class Hold:
    """Of a dataset."""

    check: Callable[[], None]  # raises FlowprepError when another run has taken it over
    tell_trouble: Tell  # of heartbeats; the first is passed on


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


@contextmanager
def held(layout: Layout, out: str, command: str, warn: Tell = _to_stderr) -> Iterator[Hold]:
    """The dataset is ours alone, and what a crash has left half done in it is ended. `command` is
    what others are told of us; `warn` is told when that does not work.

    Raises FlowprepError when another process has it.
    """
    is_new = not layout.is_remote and not layout.out.exists()
    _make_folders(layout, out)
    with exclusive(layout.lock, out, "command") as check:
        try:
            shutil.rmtree(layout.scratch, ignore_errors=True)
            layout.scratch.mkdir(mode=0o700)
            tell = once(warn)
            with beating(layout, command, tell):
                if isinstance(layout.out, RemotePath):
                    layout.out.drop_unfinished()
                layout.swap.mkdir(exist_ok=True)
                finish_swaps(layout)
                finish_pending(layout)
                yield Hold(check, tell)
        finally:
            shutil.rmtree(layout.scratch, ignore_errors=True)
            with suppress(OSError):  # a shard is left in it
                layout.swap.rmdir()
            if not layout.is_remote:
                layout.lock.unlink(missing_ok=True)
            _remove_empty([layout.marks, layout.internal, *([layout.out] if is_new else [])])


@contextmanager
def finished(out: str, command: str) -> Iterator[tuple[Layout, list[Mark]]]:
    """A finished dataset that is ours alone, and its commit marks.

    Raises FlowprepError when there is none, when it is not finished, or its tables are damaged.
    """
    layout = local_layout_of(out, "changed")
    with held(layout, out, command):
        try:
            marks = _vouched_marks(layout)
        except (ValueError, OSError) as error:
            raise FlowprepError(
                f"{out} is not finished, or damaged: {error}",
                f"run flowprep verify {out}, which says more and can repair it, and then this",
            ) from error
        yield layout, marks


def _vouched_marks(layout: Layout) -> list[Mark]:
    """Raises ValueError unless the tables and marks are those that dataset.json vouches for."""
    dataset = load_dataset(plain(layout.dataset))
    for path in layout.tables:
        if sha256_file(plain(path)) != dataset["files"].get(path.name):
            raise ValueError(f"{path.name} is not as written")
    marks = [load_mark(plain(layout.mark(shard))) for shard in layout.committed()]
    if {m.shard: hashlib.sha256(m.to_json()).hexdigest() for m in marks} != dataset["shards"]:
        raise ValueError("the commit marks are not as written")
    return marks


def _remove_empty(folders: list[Place]) -> None:
    """What a run that came to nothing has made, inner ones first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _make_folders(layout: Layout, out: str) -> None:
    if isinstance(layout.lock, RemotePath):
        return
    try:
        layout.marks.mkdir(parents=True, exist_ok=True)
        layout.lock.touch()
    except OSError as error:
        raise FlowprepError(
            f"--out {out}: {error.strerror}", "give a folder you can write to"
        ) from error
