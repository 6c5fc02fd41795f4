"""Put a finished shard in its place: the tar, its .idx, and last the mark that vouches for both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowprep.shard.index import Mark, dali_idx, load_mark
from flowprep.shard.layout import Layout
from flowprep.storage import (
    RemotePath,
    file_names,
    flush_to_disk,
    folder_names,
    move,
    publish,
    read_if_there,
    write_whole,
)


def commit(
    layout: Layout, mark: Mark, tar: Path, scratch: Path, alive: Callable[[], None] = lambda: None
) -> None:
    """Publish a shard. `tar` lies in `scratch`, a folder of one's own on the same file system;
    `alive` is called now and then.
    """
    if read_if_there(layout.mark(mark.shard)) is None:
        _add(layout, mark, tar, scratch, alive)
    else:
        _replace(layout, mark, tar, scratch, alive)


def _add(layout: Layout, mark: Mark, tar: Path, scratch: Path, alive: Callable[[], None]) -> None:
    """What is interrupted before the mark is made again."""
    if mark.samples:
        publish(tar, layout.tar(mark.shard), alive)
    else:
        layout.tar(mark.shard).unlink(missing_ok=True)
    write_whole(layout.idx(mark.shard), dali_idx(mark.samples), scratch)
    write_whole(layout.mark(mark.shard), mark.to_json(), scratch)


def _replace(
    layout: Layout, mark: Mark, tar: Path, scratch: Path, alive: Callable[[], None]
) -> None:
    """Swap in a shard that is there already, and whose samples may have no source any more.

    All its files become one folder, by one rename (in object storage they are put beside, the mark
    last); from then on `finish_swap` can end what a crash interrupts.
    """
    ready = scratch / "ready"
    ready.mkdir()
    if mark.samples:
        tar.replace(ready / "tar")
    (ready / "idx").write_bytes(dali_idx(mark.samples))
    (ready / "mark").write_bytes(mark.to_json())
    swap = layout.swap / mark.shard
    if isinstance(swap, RemotePath):
        for name in ("tar", "idx", "mark"):
            if (ready / name).exists():
                (swap / name).upload(ready / name, alive)
    else:
        for path in [*ready.iterdir(), ready]:
            flush_to_disk(path)
        ready.replace(swap)
        flush_to_disk(swap.parent)
    finish_swap(layout, mark.shard)


def finish_swap(layout: Layout, shard: str) -> None:
    """Put the files of a shard that is ready in place, if one is. Can be interrupted and repeated.

    The old mark goes first, so that a mark never vouches for a tar that is not its own.
    """
    ready = layout.swap / shard
    if read_if_there(ready / "mark") is not None:
        layout.mark(shard).unlink(missing_ok=True)
        flush_to_disk(layout.marks)
        if not load_mark(ready / "mark").samples:
            layout.tar(shard).unlink(missing_ok=True)
        waiting = file_names(ready)
        finals = {"tar": layout.tar(shard), "idx": layout.idx(shard), "mark": layout.mark(shard)}
        for name in [name for name in finals if name in waiting]:
            move(ready / name, finals[name])
    if not layout.is_remote and ready.is_dir():
        ready.rmdir()


def finish_swaps(layout: Layout) -> None:
    """Put all shards that are ready in place. Objects that wait without a mark are those of a swap
    that was not ready: they go.
    """
    for shard in folder_names(layout.swap):
        finish_swap(layout, shard)
        if isinstance(layout.swap, RemotePath):
            for name in (layout.swap / shard).names("file"):
                (layout.swap / shard / name).unlink(missing_ok=True)
