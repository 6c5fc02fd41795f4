"""What a damaged dataset still knows of itself: who vouches for what, and what follows from it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flowprep.config import Settings, load_toml, settings_from
from flowprep.errors import FlowprepError
from flowprep.records import Failure
from flowprep.run.removed import known_removed
from flowprep.shard.index import (
    Mark,
    dali_idx,
    load_dataset,
    load_failures,
    load_index,
    load_mark,
)
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow, load_plan
from flowprep.shard.reader import damaged_samples
from flowprep.shard.schema import SampleRow
from flowprep.shard.writer import tar_size_bytes
from flowprep.storage import Place, oddity, plain, sha256_file

Marks = dict[str, Mark | None]
"""shard -> its mark, None where nothing is known of it."""
RESTORE = "put a copy of it back, or extract into another folder"


@dataclass(frozen=True, kw_only=True)
class Known:
    """The plan and the settings, which nothing else can tell, and what dataset.json vouches for."""

    layout: Layout
    settings: Settings
    recorded: str  # where the source lay
    versions: dict[str, str]  # of the first run
    classes: list[str]  # of the first run, by index, [] when not told
    rows: list[PlanRow]
    files: dict[str, str]  # name of a table -> sha256; {} when dataset.json is damaged or not there
    marks: dict[str, str]  # shard -> sha256 of its mark; {} likewise
    vouched_classes: list[str]  # [] likewise
    n_failures: int | None  # None likewise
    samples: dict[str, list[SampleRow]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))

    @cached_property
    def planned(self) -> dict[str, set[str]]:
        """shard -> keys of its clips."""
        found = defaultdict[str, set[str]](set)
        for row in self.rows:
            found[row.shard].add(row.key)
        return dict(found)


def load_known(layout: Layout) -> Known:
    """Raises FlowprepError when the plan, the settings or what was removed are damaged."""
    try:
        dataset = load_dataset(plain(layout.dataset))
    except (ValueError, OSError):
        dataset = {"files": {}, "shards": {}, "classes": [], "failures": None}
    files: dict[str, str] = dataset["files"]
    table, rows = _config(layout, files), _plan(layout, files)
    known_removed(layout)
    known = Known(
        layout=layout,
        settings=settings_from(table["settings"], str(layout.config)),
        recorded=str(table["source"]["root"]),
        versions=table["versions"],
        classes=table["source"].get("classes", []),
        rows=rows,
        files=files,
        marks=dataset["shards"],
        vouched_classes=dataset["classes"],
        n_failures=dataset["failures"],
    )
    if is_vouched(layout.failures, files):
        for shard, failure in load_failures(layout.failures):
            known.failures[shard].append(failure)
        if is_vouched(layout.index, files):
            for shard, row in load_index(layout.index):
                known.samples[shard].append(row)
    return known


def unclaimed(known: Known) -> Known:
    """The same when dataset.json is out of date: a mark speaks for itself."""
    return replace(known, files={}, marks={})


def is_vouched(path: Place, files: dict[str, str]) -> bool:
    """Whether a table is the one that dataset.json names."""
    try:
        return sha256_file(plain(path)) == files.get(path.name)
    except (ValueError, OSError):
        return False


def _config(layout: Layout, files: dict[str, str]) -> dict[str, Any]:
    try:
        if files and not is_vouched(layout.config, files):
            raise ValueError("it is not as written")
        table = load_toml(plain(layout.config))
        settings_from(table["settings"], "config.toml")
        str(table["source"]["root"])
        dict(table["versions"])
    except (ValueError, KeyError, TypeError, FlowprepError) as error:
        raise _lost(layout.config, error) from error
    return table


def _plan(layout: Layout, files: dict[str, str]) -> list[PlanRow]:
    try:
        if files and not is_vouched(layout.plan, files):
            raise ValueError("it is not as written")
        return load_plan(plain(layout.plan))
    except Exception as error:
        raise _lost(layout.plan, error) from error


def _lost(path: Place, error: Exception) -> FlowprepError:
    why = error.message if isinstance(error, FlowprepError) else str(error)
    what = f"{path} is damaged ({why}), and nothing else holds what is in it"
    return FlowprepError(what, RESTORE)


def sound_mark(known: Known, shard: str) -> Mark | None:
    """The mark of a shard, when nothing speaks against it."""
    try:
        mark = load_mark(plain(known.layout.mark(shard)))
    except ValueError:
        return None
    clips = [row.key for row in mark.samples] + [failure.key for failure in mark.failures]
    expected = known.planned[shard]
    fits = mark.shard == shard and mark.fingerprint == known.settings.fingerprint()
    if not fits or len(clips) != len(expected) or set(clips) != expected:
        return None
    claimed = known.marks.get(shard)
    return mark if claimed in (None, _sha256(mark)) else None


def _sha256(mark: Mark) -> str:
    return hashlib.sha256(mark.to_json()).hexdigest()


def restored_mark(known: Known, shard: str, versions: Iterable[dict[str, str]]) -> Mark | None:
    """A lost mark out of the index, the failures and the tar; None when they do not tell.

    It is the very mark when the tar is whole and one of `versions` is right. Otherwise it vouches
    for the samples only: its `tar_sha256` is no hash, so that the shard counts as damaged.
    """
    samples, failures = known.samples.get(shard, []), known.failures.get(shard, [])
    clips = {row.key for row in samples} | {failure.key for failure in failures}
    if clips != known.planned[shard]:
        return None
    tar = known.layout.tar(shard)
    mark = Mark(
        shard=shard,
        fingerprint=known.settings.fingerprint(),
        tar_bytes=tar_size_bytes(samples[-1].sample_offset + samples[-1].sample_size)
        if samples
        else 0,
        tar_sha256=sha256_file(tar) if samples and not oddity(tar) else "",
        idx_sha256=hashlib.sha256(dali_idx(samples)).hexdigest(),
        samples=samples,
        failures=failures,
        versions=known.versions,
    )
    for candidate in (replace(mark, versions=v) for v in versions):
        if _sha256(candidate) == known.marks.get(shard):
            return candidate
    return replace(mark, tar_sha256="damaged") if samples else mark


def healthy_samples(layout: Layout, mark: Mark) -> list[SampleRow]:
    """The samples whose bytes in the tar are those that the mark vouches for."""
    tar = layout.tar(mark.shard)
    if not mark.samples or oddity(tar):
        return []
    damaged = {row.key for row in damaged_samples(tar, mark.samples)}
    return [row for row in mark.samples if row.key not in damaged]


def is_whole(layout: Layout, mark: Mark) -> bool:
    """Whether the tar of a shard is the one that its mark vouches for."""
    tar = layout.tar(mark.shard)
    return not mark.samples or (not oddity(tar) and sha256_file(tar) == mark.tar_sha256)


def restored_classes(known: Known, marks: Iterable[Mark]) -> bytes:
    """classes.txt out of dataset.json, or else out of the samples and of the first run's classes:
    what is left fills the gaps by name, and what nothing names any more is unknown-<index>.
    """
    if known.vouched_classes:
        return _lines(known.vouched_classes)
    by_index = dict(enumerate(known.classes))
    by_index |= {index: label for mark in marks for index, label in _classes_of(mark)}
    labels = {row.label for row in known.rows if row.label}
    rest = iter(sorted(labels - set(by_index.values())))
    n = max(len(labels | set(by_index.values())), max(by_index, default=-1) + 1)
    return _lines([by_index[i] if i in by_index else next(rest, f"unknown-{i}") for i in range(n)])


def _classes_of(mark: Mark) -> Iterator[tuple[int, str]]:
    """(index, name) as the samples have it, now and when they were written."""
    for row in mark.samples:
        if row.label:
            yield row.label_index, row.label
        if row.tar_label:
            yield row.tar_label_index, row.tar_label


def _lines(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def classes_fit(known: Known, marks: Iterable[Mark]) -> bool:
    """Whether classes.txt has every label of the plan, where the samples and the first run
    say that it is.
    """
    try:
        names = plain(known.layout.classes).read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError):
        return False
    stated = {pair for mark in marks for pair in _classes_of(mark)}
    stated |= set(enumerate(known.classes))
    fits = stated <= set(enumerate(names)) and {r.label for r in known.rows} <= {"", *names}
    return fits and len(names) == len(set(names))
