"""Put a finished shard in its place: the tar, its .idx, and last the mark that vouches for both."""

from __future__ import annotations

from pathlib import Path

from flowprep.shard.index import Mark, dali_idx, load_mark
from flowprep.shard.layout import Layout
from flowprep.storage import RemotePath, file_names, flush_to_disk, move, publish, write_whole


def commit(layout: Layout, mark: Mark, tar: Path, scratch: Path) -> None:
    """Publish a shard. `tar` lies in `scratch`, a folder of one's own on the same file system."""
    if layout.mark(mark.shard).exists():
        _replace(layout, mark, tar, scratch)
    else:
        _add(layout, mark, tar, scratch)


def _add(layout: Layout, mark: Mark, tar: Path, scratch: Path) -> None:
    """What is interrupted before the mark is made again."""
    if mark.samples:
        publish(tar, layout.tar(mark.shard))
    else:
        layout.tar(mark.shard).unlink(missing_ok=True)
    write_whole(layout.idx(mark.shard), dali_idx(mark.samples), scratch)
    write_whole(layout.mark(mark.shard), mark.to_json(), scratch)


def _replace(layout: Layout, mark: Mark, tar: Path, scratch: Path) -> None:
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
                (swap / name).upload(ready / name)
    else:
        for path in [*ready.iterdir(), ready]:
            flush_to_disk(path)
        ready.replace(swap)
        flush_to_disk(swap.parent)
    finish_swap(layout, mark.shard)


def finish_swap(layout: Layout, shard: str) -> None:
    """Put the files of a shard that is ready in place, if one is. Can be interrupted and repeated.

    The old mark goes first, so that a mark never vouches for a tar that is not its own. Objects
    that wait without a mark are those of a swap that was not ready.
    """
    ready = layout.swap / shard
    waiting = file_names(ready)
    if "mark" in waiting:
        layout.mark(shard).unlink(missing_ok=True)
        flush_to_disk(layout.marks)
        if not load_mark(ready / "mark").samples:
            layout.tar(shard).unlink(missing_ok=True)
    elif layout.is_remote:
        for name in waiting:
            (ready / name).unlink(missing_ok=True)
        return
    finals = {"tar": layout.tar(shard), "idx": layout.idx(shard), "mark": layout.mark(shard)}
    for name, final in finals.items():
        if name in waiting:
            move(ready / name, final)
    if ready.is_dir():
        ready.rmdir()
