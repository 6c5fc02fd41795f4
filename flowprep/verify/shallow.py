"""Every byte of a dataset against the hashes that vouch for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowprep.config import load_toml, settings_from
from flowprep.errors import FlowprepError
from flowprep.records import Finding
from flowprep.run.plan import PlanRow, load_plan
from flowprep.shard.index import Mark, dali_idx, load_dataset, load_index, load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleRow
from flowprep.storage import sha256_file

NAMED_SAMPLES = 8
"""So many damaged samples of a shard are named one by one; beyond that, the shard is."""


def load_marks(layout: Layout) -> tuple[list[Mark], list[Finding]]:
    """The commit marks, and a finding for each that does not read."""
    marks, findings = [], []
    for shard in layout.committed():
        try:
            mark = load_mark(layout.mark(shard))
        except (ValueError, OSError) as error:
            findings.append(_of_mark(layout, shard, str(error)))
            continue
        if mark.shard != shard:
            findings.append(_of_mark(layout, shard, f"is the mark of {mark.shard}"))
        else:
            marks.append(mark)
    return marks, findings


def _of_mark(layout: Layout, shard: str, message: str) -> Finding:
    return Finding(
        code="mark-damaged", file=relative(layout, layout.mark(shard)), shard=shard, message=message
    )


def relative(layout: Layout, path: Path) -> str:
    """The path as a user sees it in the dataset."""
    return path.relative_to(layout.out).as_posix()


def check_dataset(layout: Layout, marks: list[Mark]) -> Iterator[Finding]:
    """dataset.json, the tables, the marks it lists, and files that nobody vouches for."""
    try:
        dataset = load_dataset(layout.dataset)
    except FileNotFoundError:
        message = f"not finished: {len(layout.committed())} shards so far; run extract again"
        yield Finding(code="incomplete", file=relative(layout, layout.dataset), message=message)
        dataset = {}
    except (ValueError, OSError) as error:
        yield Finding(
            code="dataset-damaged", file=relative(layout, layout.dataset), message=str(error)
        )
        dataset = {}
    if dataset:
        yield from _check_tables(layout, dataset, marks)
        yield from _check_marks(layout, dataset, marks)
        yield from _check_totals(layout, dataset, marks)
    yield from _check_plan(layout, marks)
    yield from _unexpected(layout, {mark.shard: mark for mark in marks}, dataset)


def _check_tables(layout: Layout, dataset: dict[str, Any], marks: list[Mark]) -> Iterator[Finding]:
    for path in layout.tables:
        name = relative(layout, path)
        if not path.exists():
            yield Finding(code="table-missing", file=name, message="is missing")
        elif sha256_file(path) != dataset["files"].get(path.name):
            yield Finding(code="table-damaged", file=name, message="is not what dataset.json says")
            if path == layout.index:
                yield from _check_index(layout, marks)


def _check_index(layout: Layout, marks: list[Mark]) -> Iterator[Finding]:
    """Name the samples that a damaged index has wrong."""
    expected = {row.key: (mark.shard, row) for mark in marks for row in mark.samples}
    try:
        found = {row.key: (shard, row) for shard, row in load_index(layout.index)}
    except Exception:  # noqa: BLE001 - damaged parquet raises anything; the finding is made already
        return
    name = relative(layout, layout.index)
    for key in sorted(set(expected) | set(found)):
        if expected.get(key) != found.get(key):
            shard = (expected.get(key) or found[key])[0]
            what = "has no row" if key not in found else "has a wrong row"
            yield Finding(code="index-row", file=name, shard=shard, key=key, message=what)


def _check_marks(layout: Layout, dataset: dict[str, Any], marks: list[Mark]) -> Iterator[Finding]:
    claimed: dict[str, str] = dataset["shards"]
    for shard in sorted(set(claimed) - set(layout.committed())):
        yield Finding(
            code="mark-missing",
            file=relative(layout, layout.mark(shard)),
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
                file=relative(layout, layout.dataset),
                message=f"{name} {dataset[name]}, but the marks say {count}",
            )


def _check_plan(layout: Layout, marks: list[Mark]) -> Iterator[Finding]:
    """Planned clips = samples + failures, in every shard, made with this configuration."""
    try:
        rows: list[PlanRow] = load_plan(layout.plan)
        settings = settings_from(load_toml(layout.config)["settings"], layout.config.name)
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
    expected = {layout.dataset, *layout.tables}
    for shard in shards:
        expected |= {layout.idx(shard), layout.mark(shard)}
        if shard not in marks or marks[shard].samples:
            expected.add(layout.tar(shard))
    vouched = set(dataset.get("shards", shards))
    for path in sorted(p for p in layout.out.rglob("*") if not p.is_dir()):
        stranger = path.parent == layout.marks and path.stem not in vouched
        if path not in expected or stranger:
            yield Finding(
                code="unexpected-file",
                file=relative(layout, path),
                message="is not part of this dataset",
            )


def check_shard(layout: Layout, mark: Mark) -> list[Finding]:
    """The tar and the .idx of one shard against its mark."""
    return [*_check_idx(layout, mark), *_check_tar(layout, mark)]


def _check_idx(layout: Layout, mark: Mark) -> Iterator[Finding]:
    path = layout.idx(mark.shard)
    name = relative(layout, path)
    if not path.exists():
        yield Finding(code="idx-missing", file=name, shard=mark.shard, message="is missing")
    elif sha256_file(path) != mark.idx_sha256 or path.read_bytes() != dali_idx(mark.samples):
        yield Finding(code="idx-damaged", file=name, shard=mark.shard, message="is not as written")


def _check_tar(layout: Layout, mark: Mark) -> Iterator[Finding]:
    path = layout.tar(mark.shard)
    name = relative(layout, path)
    if not mark.samples:
        return
    if not path.exists():
        yield Finding(code="tar-missing", file=name, shard=mark.shard, message="is missing")
    elif path.stat().st_size != mark.tar_bytes or sha256_file(path) != mark.tar_sha256:
        damaged = list(_damaged(path, mark.samples))
        size = path.stat().st_size
        message = "is not as written"
        if size != mark.tar_bytes:
            message += f": {size} bytes, {mark.tar_bytes} expected"
        if not 0 < len(damaged) <= NAMED_SAMPLES:
            where = f"; {len(damaged)} of {len(mark.samples)} samples hit" if damaged else ""
            yield Finding(code="tar-damaged", file=name, shard=mark.shard, message=message + where)
            return
        for row in damaged:
            yield Finding(
                code="tar-damaged", file=name, shard=mark.shard, key=row.key, message=message
            )


def _damaged(path: Path, rows: list[SampleRow]) -> Iterator[SampleRow]:
    for row in rows:
        start, stop = row.sample_offset, row.sample_offset + row.sample_size
        if sha256_file(path, start, stop) != row.sha256:
            yield row


def require_dataset(out: Path) -> Layout:
    """The layout of `out`. Raises FlowprepError when it is no dataset of ours."""
    layout = Layout(out.resolve())
    if not layout.internal.is_dir():
        raise FlowprepError(
            f"{out}: no flowprep dataset here", "give the folder that flowprep extract wrote"
        )
    return layout
