"""A finished dataset changes: samples get other labels, or go.

The change is written down whole (`pending.json`), and then done. Every step can be repeated, so a
change that was interrupted is ended by whatever command holds the dataset next.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from flowprep import manifest
from flowprep.clips import clip_key
from flowprep.config import load_toml, settings_from
from flowprep.errors import FlowprepError
from flowprep.processes import usable_cores
from flowprep.records import Failure
from flowprep.run.change import Change
from flowprep.run.job import copy_sample, sample_row
from flowprep.run.removed import known_removed
from flowprep.shard.commit import commit
from flowprep.shard.index import (
    Mark,
    canonical,
    dali_idx,
    dataset_bytes,
    gather,
    load_mark,
)
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow, load_plan, plan_bytes
from flowprep.shard.reader import damaged_samples, read_current
from flowprep.shard.removed import Removed, removed_bytes
from flowprep.shard.schema import SampleRow, typed
from flowprep.shard.writer import ShardWriter
from flowprep.storage import (
    Place,
    exists,
    flush_to_disk,
    oddity,
    plain,
    scratch_folder,
    sha256_file,
    write_whole,
)


def perform(layout: Layout, change: Change) -> None:
    """Change the dataset, which is held. Raises OSError when the disk does not take it."""
    write_whole(layout.pending, canonical(asdict(change)), layout.scratch)
    finish_pending(layout)


def finish_pending(layout: Layout) -> None:
    """End the change that was decided, if one is. Can be interrupted and repeated."""
    if not exists(layout.pending):
        return
    change = _load(layout.pending)
    layout.dataset.unlink(missing_ok=True)
    _change_tables(layout, change)
    in_threads(partial(_change_shard, layout, change), _marks(layout))
    _finish(layout)
    layout.pending.unlink()


def _load(path: Place) -> Change:
    try:
        return typed(Change, json.loads(plain(path).read_bytes()))
    except (ValueError, RecursionError) as error:
        raise FlowprepError(
            f"{path} is damaged: {error}; it says what flowprep relabel or remove was to do",
            "delete it, let flowprep verify --repair mend the dataset, and say it once more",
        ) from error


def _change_tables(layout: Layout, change: Change) -> None:
    """What was removed, the classes, the plan and the manifest. The plan first of these that tell
    what there is: a shard that cannot be read is made again from it.
    """
    removed = known_removed(layout).records | {(path, key) for path, key in change.ban}
    removed -= {(path, key) for path, key in change.lift}
    _write(layout, layout.removed, removed_bytes(Removed(removed)))
    _write(layout, layout.classes, "".join(f"{name}\n" for name in change.classes).encode())
    rows = [
        replace(row, label=change.labels.get(row.key, row.label))
        for row in _planned(layout)
        if row.key not in change.gone
    ]
    _write(layout, layout.plan, plan_bytes(rows))
    if change.gone:
        _change_manifest(layout, rows, change.gone)


def _planned(layout: Layout) -> list[PlanRow]:
    try:
        return load_plan(plain(layout.plan))
    except (ValueError, OSError) as error:
        raise FlowprepError(
            f"{layout.plan} is damaged ({error}), and a flowprep command was interrupted",
            "put a copy of it back and run the same command again",
        ) from error


def _change_manifest(layout: Layout, rows: list[PlanRow], gone: frozenset[str]) -> None:
    try:
        videos = manifest.load(layout.manifest)
    except Exception:  # noqa: BLE001 - damaged parquet raises anything; a repair makes it again
        return
    lost = {_stem(key) for key in gone} - {_stem(row.key) for row in rows}
    left = [i for i, video in enumerate(videos) if _stem(clip_key(video, 0)) not in lost]
    _write(layout, layout.manifest, manifest.to_bytes(videos.take(left)))


def _stem(key: str) -> str:
    """What the keys of all clips of a video begin with."""
    return key.rpartition("-")[0]


def _write(layout: Layout, path: Place, data: bytes) -> None:
    """Unless that is what is there."""
    if oddity(path) or path.read_bytes() != data:
        write_whole(path, data, layout.scratch)


def _marks(layout: Layout) -> list[Mark]:
    """Those that can be read: what cannot is a damage, which verify finds and a repair mends."""
    marks = []
    for shard in layout.committed():
        try:
            mark = load_mark(plain(layout.mark(shard)))
        except (ValueError, OSError):
            continue
        marks += [mark] if mark.shard == shard else []
    return marks


def in_threads(work: Callable[[Mark], None], marks: Iterable[Mark]) -> None:
    """Do it for all, on all cores. What the first one raises ends the others soon."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            for done in [pool.submit(work, mark) for mark in marks]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _change_shard(layout: Layout, change: Change, mark: Mark) -> None:
    rows = [change.row(row) for row in mark.samples if row.key not in change.gone]
    failures = [failure for failure in mark.failures if failure.key not in change.gone]
    if not rows and not failures and mark.n_planned:
        for path in (layout.tar(mark.shard), layout.idx(mark.shard), layout.mark(mark.shard)):
            path.unlink(missing_ok=True)  # the mark last: it tells that there is something to do
        flush_to_disk(layout.marks)
    elif len(rows) < len(mark.samples) or any(map(change.is_stale, rows)):
        _rebuild(layout, change, mark, rows, failures)
    elif rows != mark.samples or failures != mark.failures:
        mark = replace(mark, samples=rows, failures=failures)
        write_whole(layout.mark(mark.shard), mark.to_json(), layout.scratch)


def _rebuild(
    layout: Layout, change: Change, old: Mark, rows: list[SampleRow], failures: list[Failure]
) -> None:
    """The shard with these samples. Damaged ones are copied as they are, and stay known as that."""
    source = layout.tar(old.shard)
    source = Path(os.devnull) if oddity(source) else source
    damaged = {row.key for row in damaged_samples(source, rows)}
    with scratch_folder(layout.scratch, old.shard) as scratch:
        tar = scratch / "shard.tar"
        with ShardWriter(tar) as writer:
            samples = [
                _rewritten(writer, source, change, row)
                if change.is_stale(row) and row.key not in damaged
                else replace(copy_sample(writer, source, row), sha256=row.sha256)
                for row in rows
            ]
        whole_sha256 = sha256_file(tar) if samples else ""
        mark = replace(
            old,
            tar_bytes=tar.stat().st_size if samples else 0,
            tar_sha256="damaged" if damaged else whole_sha256,
            idx_sha256=hashlib.sha256(dali_idx(samples)).hexdigest(),
            samples=samples,
            failures=failures,
        )
        commit(layout, mark, tar, scratch)


def _rewritten(writer: ShardWriter, source: Place, change: Change, row: SampleRow) -> SampleRow:
    """A sample whose json and .cls tell the label of its row; the other members as they were."""
    sample = read_current(source, row)
    members: dict[str, bytes | Path] = {"cls": str(row.label_index).encode(), **sample.members}
    return sample_row(sample.info, writer.add(row.key, members))


def _finish(layout: Layout) -> None:
    """The tables of what is there now, and dataset.json when nothing is missing."""
    planned = {row.shard for row in _planned(layout)}
    marks = [mark for mark in _marks(layout) if mark.shard in planned]
    found = gather(marks)
    _write(layout, layout.index, found.index)
    _write(layout, layout.failures, found.failures)
    if len(marks) == len(planned):
        settings = settings_from(load_toml(layout.config)["settings"], layout.config.name)
        data = dataset_bytes(layout, found, settings.fingerprint())
        write_whole(layout.dataset, data, layout.scratch)
