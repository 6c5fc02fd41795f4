"""Every byte of a dataset against the hashes that vouch for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowprep.config import load_toml, settings_from
from flowprep.errors import StoreError
from flowprep.records import Finding
from flowprep.shard.index import Mark, dali_idx, load_dataset, load_index, load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow, load_plan
from flowprep.shard.reader import damaged_samples
from flowprep.shard.schema import SampleRow
from flowprep.storage import (
    Place,
    each,
    exists,
    files_below,
    oddity,
    plain,
    relative,
    sha256_file,
    size_bytes,
)

NAMED_SAMPLES = 8
"""So many damaged samples of a shard are named one by one; beyond that, the shard is."""
NAMED_ROWS = 100
"""So many wrong rows of the index are named; the rest is counted."""


def load_marks(layout: Layout) -> tuple[list[Mark], list[Finding]]:
    """The commit marks, and a finding for each that does not read."""
    shards = layout.committed()
    loaded = zip(shards, each(_loaded, map(layout.mark, shards)), strict=True)
    found = [(shard, mark) for shard, mark in loaded]
    marks = [mark for _, mark in found if isinstance(mark, Mark)]
    return marks, [_of_mark(layout, shard, odd) for shard, odd in found if isinstance(odd, str)]


def _loaded(place: Place) -> Mark | str:
    """A mark, or what is wrong with it."""
    try:
        mark = load_mark(plain(place))
    except (ValueError, OSError) as error:
        return str(error)
    return mark if mark.shard == place.stem else f"is the mark of {mark.shard}"


def _of_mark(layout: Layout, shard: str, message: str) -> Finding:
    return Finding(
        code="mark-damaged", file=shown(layout, layout.mark(shard)), shard=shard, message=message
    )


def shown(layout: Layout, place: Place) -> str:
    """The path as a user sees it in the dataset."""
    name = relative(place, layout.out)
    return name.encode("utf-8", "backslashreplace").decode()


def problem(path: Place, sha256: str | None) -> str:
    """What is wrong with a file that should have this hash, "" when nothing is."""
    try:
        if odd := oddity(path):
            return odd
        return "" if sha256_file(path) == sha256 else "is not as written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def check_dataset(layout: Layout, marks: list[Mark]) -> Iterator[Finding]:
    """dataset.json, the tables, the marks it lists, and files that nobody vouches for."""
    dataset: dict[str, Any] = {}
    name = shown(layout, layout.dataset)
    try:
        odd = oddity(layout.dataset)
        dataset = {} if odd else load_dataset(layout.dataset)
    except (ValueError, OSError) as error:
        odd = str(error)
    if odd == "is missing":
        message = (
            f"not finished: {len(layout.committed())} shards so far; run extract again, or --repair"
        )
        yield Finding(code="incomplete", file=name, message=message)
    elif odd:
        yield Finding(code="dataset-damaged", file=name, message=odd)
    else:
        yield from _check_tables(layout, dataset, marks)
        yield from _check_marks(layout, dataset, marks)
        yield from _check_totals(layout, dataset, marks)
    if exists(layout.pending):
        message = "flowprep relabel or remove was interrupted: run it again, or --repair"
        yield Finding(code="incomplete", file=shown(layout, layout.pending), message=message)
    yield from _check_plan(layout, marks)
    yield from _unexpected(layout, {mark.shard: mark for mark in marks}, dataset)


def _check_tables(layout: Layout, dataset: dict[str, Any], marks: list[Mark]) -> Iterator[Finding]:
    for path in layout.tables:
        found = problem(path, dataset["files"].get(path.name))
        if found:
            code = "table-missing" if found == "is missing" else "table-damaged"
            yield Finding(code=code, file=shown(layout, path), message=found)
    yield from _check_index(layout, marks)


def _check_index(layout: Layout, marks: list[Mark]) -> Iterator[Finding]:
    """Name the samples that the index has wrong; those of damaged marks cannot be told."""
    try:
        wrong = _wrong_rows(load_index(plain(layout.index)), marks)
    except StoreError:
        raise
    except Exception:  # noqa: BLE001 - damaged parquet raises anything; the finding is made already
        return
    name = shown(layout, layout.index)
    for (shard, key), what in sorted(wrong.items())[:NAMED_ROWS]:
        yield Finding(code="index-row", file=name, shard=shard, key=key, message=what)
    if len(wrong) > NAMED_ROWS:
        message = f"{len(wrong) - NAMED_ROWS} more samples have wrong rows"
        yield Finding(code="index-row", file=name, message=message)


def _wrong_rows(rows: list[tuple[str, SampleRow]], marks: list[Mark]) -> dict[tuple[str, str], str]:
    """(shard, key) -> what is wrong with its row."""
    expected = {(mark.shard, row.key): row for mark in marks for row in mark.samples}
    shards = {mark.shard for mark in marks}
    wrong, seen = {}, set()
    for shard, row in rows:
        place = (str(shard), str(row.key))
        if place in seen:
            wrong[place] = "has two rows"
        elif expected.get(place) != row and shard in shards:
            wrong[place] = "has a wrong row" if place in expected else "has a row too many"
        seen.add(place)
    return wrong | {place: "has no row" for place in expected if place not in seen}


def _check_marks(layout: Layout, dataset: dict[str, Any], marks: list[Mark]) -> Iterator[Finding]:
    claimed: dict[str, str] = dataset["shards"]
    for shard in sorted(set(claimed) - set(layout.committed())):
        yield Finding(
            code="mark-missing",
            file=shown(layout, layout.mark(shard)),
            shard=shard,
            message="is missing",
        )
    for mark in marks:
        if (
            mark.shard in claimed
            and hashlib.sha256(mark.to_json()).hexdigest() != claimed[mark.shard]
        ):
            yield _of_mark(layout, mark.shard, "is not what dataset.json says")


def _check_totals(layout: Layout, dataset: dict[str, Any], marks: list[Mark]) -> Iterator[Finding]:
    if len(marks) != len(dataset["shards"]):
        return
    totals = {
        "samples": sum(len(m.samples) for m in marks),
        "failures": sum(len(m.failures) for m in marks),
        "planned": sum(m.n_planned for m in marks),
    }
    for name, count in totals.items():
        if dataset[name] != count:
            yield Finding(
                code="totals",
                file=shown(layout, layout.dataset),
                message=f"{name} {dataset[name]}, but the marks say {count}",
            )


def _check_plan(layout: Layout, marks: list[Mark]) -> Iterator[Finding]:
    """Planned clips = samples + failures, in every shard, made with this configuration."""
    try:
        rows: list[PlanRow] = load_plan(plain(layout.plan))
        settings = settings_from(load_toml(plain(layout.config))["settings"], layout.config.name)
    except StoreError:
        raise
    except Exception:  # noqa: BLE001 - damaged files raise anything; they have a finding already
        return
    planned: dict[str, set[str]] = {}
    for row in rows:
        planned.setdefault(row.shard, set()).add(row.key)
    for mark in marks:
        made = [r.key for r in mark.samples] + [f.key for f in mark.failures]
        if len(made) != len(set(made)) or set(made) != planned.get(mark.shard, set()):
            yield _of_mark(layout, mark.shard, "holds other clips than planned")
        if mark.fingerprint != settings.fingerprint():
            yield _of_mark(layout, mark.shard, "was made with other settings")


def _unexpected(
    layout: Layout, marks: dict[str, Mark], dataset: dict[str, Any]
) -> Iterator[Finding]:
    shards = set(marks) | set(dataset.get("shards", {})) | set(layout.committed())
    expected = {layout.dataset, layout.runs, layout.pending, layout.settled, *layout.tables}
    if (odd := oddity(layout.runs)) not in ("", "is missing"):
        yield Finding(code="unexpected-file", file=shown(layout, layout.runs), message=odd)
    for shard in shards:
        expected |= {layout.idx(shard), layout.mark(shard)}
        if shard not in marks or marks[shard].samples:
            expected.add(layout.tar(shard))
    vouched = set(dataset.get("shards", shards))
    unread: list[OSError] = []
    for path in files_below(layout.out, unread):
        stranger = path.parent == layout.marks and path.stem not in vouched
        if layout.is_heartbeat(path) and not oddity(path):  # of a run that is on, or was killed
            continue
        if path not in expected or stranger:
            yield Finding(
                code="unexpected-file",
                file=shown(layout, path),
                message="is not part of this dataset",
            )
    for error in unread:
        name = shown(layout, Path(error.filename))
        yield Finding(code="unreadable", file=name, message=f"cannot be read: {error.strerror}")


def check_shard(layout: Layout, mark: Mark) -> list[Finding]:
    """The tar and the .idx of one shard against its mark."""
    return [*_check_idx(layout, mark), *_check_tar(layout, mark)]


def _check_idx(layout: Layout, mark: Mark) -> Iterator[Finding]:
    path = layout.idx(mark.shard)
    found = problem(path, mark.idx_sha256)
    if not found and mark.idx_sha256 != hashlib.sha256(dali_idx(mark.samples)).hexdigest():
        found = "is not what the commit mark says"
    if found:
        code = "idx-missing" if found == "is missing" else "idx-damaged"
        yield Finding(code=code, file=shown(layout, path), shard=mark.shard, message=found)


def _check_tar(layout: Layout, mark: Mark) -> Iterator[Finding]:
    path = layout.tar(mark.shard)
    if not mark.samples:
        return
    found = problem(path, mark.tar_sha256)
    if not found:
        return
    code = "tar-missing" if found == "is missing" else "tar-damaged"
    keys, where = [""], ""
    if found == "is not as written":
        keys, where = _hit(path, mark)
    for key in keys:
        yield Finding(
            code=code, file=shown(layout, path), shard=mark.shard, key=key, message=found + where
        )


def _hit(path: Place, mark: Mark) -> tuple[list[str], str]:
    """(keys of the damaged samples or [""], what to add to the message)."""
    damaged = [row.key for row in damaged_samples(path, mark.samples)]
    size, where = size_bytes(path), ""
    if size != mark.tar_bytes:
        where = f": {size} bytes, {mark.tar_bytes} expected"
    if 0 < len(damaged) <= NAMED_SAMPLES:
        return damaged, where
    if damaged:
        where += f"; {len(damaged)} of {len(mark.samples)} samples hit"
    return [""], where
