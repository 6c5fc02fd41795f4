"""`flowprep remove`: clips leave a finished dataset, and stay out of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flowprep.errors import FlowprepError
from flowprep.run.change import Change, check_room, some
from flowprep.run.held import finished
from flowprep.run.living import perform
from flowprep.run.stored import load_classes
from flowprep.shard.index import Mark
from flowprep.shard.plan import PlanRow, load_plan
from flowprep.shard.removed import Removed, load_removed, name_sha256


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a removal did."""

    samples: int
    failures: int
    shards: int  # written again without them
    emptied: list[str]  # shards of which nothing is left
    before: int  # names of what had been removed already

    def lines(self) -> Iterator[str]:
        """For people."""
        yield (
            f"removed: {self.samples:,} samples and {self.failures:,} failures; "
            f"{self.shards:,} shards are written again, all others keep their bytes"
        )
        if self.emptied:
            yield f"{len(self.emptied):,} shards are gone: nothing was left of {some(self.emptied)}"
        if self.before:
            yield f"{self.before:,} had been removed already"


def remove(out: str, names: Iterable[str]) -> Taken:
    """Take clips out: by key, or all of a source file by its path.

    Raises FlowprepError, with nothing touched, when a name is not in the dataset.
    """
    wanted = _distinct(names)
    with finished(out, "remove") as (layout, marks):
        rows, removed = load_plan(layout.plan), load_removed(layout.removed)
        gone, records = _met(wanted, rows)
        before = [name for name in wanted if name not in records and _is_out(removed, name)]
        if unknown := sorted(wanted - records.keys() - set(before)):
            raise FlowprepError(
                f"{len(unknown):,} of {len(wanted):,} names are not in {out}: {some(unknown)}",
                "give keys, or paths as the dataset's index has them; nothing was removed",
            )
        whole = {(name_sha256(name), "") for name in before if removed.has_part(name)}
        ban = sorted(whole.union(*records.values()) - removed.records)
        change = Change(
            command="remove",
            classes=load_classes(layout),
            without=sorted(gone),
            ban=[list(record) for record in ban],
        )
        check_room(layout, change, marks)
        if gone or ban:
            perform(layout, change)
        return _taken(marks, gone, len(before))


def lift(out: str, names: Iterable[str]) -> int:
    """Let what was removed come back when it is extracted again: number of records that go.

    Raises FlowprepError, with nothing touched, when a name was not removed.
    """
    wanted = _distinct(names)
    with finished(out, "remove --lift") as (layout, _):
        removed = load_removed(layout.removed)
        if unknown := sorted(name for name in wanted if not _is_out(removed, name)):
            raise FlowprepError(
                f"{len(unknown):,} of {len(wanted):,} names were not removed: {some(unknown)}",
                "name what was removed as it was named then: the key, or the path",
            )
        hashes = {name_sha256(name) for name in wanted}
        gone = {record for record in removed.records if hashes & set(record)}
        if any((path, "") in removed.records - gone for path, _ in gone):
            raise FlowprepError(
                "all of a file was removed, so that lifting a key of it would do nothing",
                "lift the path of the file",
            )
        lifted = [list(record) for record in sorted(gone)]
        perform(layout, Change(command="remove", classes=load_classes(layout), lift=lifted))
        return len(gone)


def _distinct(names: Iterable[str]) -> set[str]:
    wanted = {name.rstrip("\r\n") for name in names} - {""}
    if not wanted:
        raise FlowprepError("nothing is named", "give keys or paths with --keys or --key")
    return wanted


def _is_out(removed: Removed, name: str) -> bool:
    """Whether something was removed by that key, or of that path."""
    return removed.has_key(name) or removed.has_part(name)


def _met(wanted: set[str], rows: list[PlanRow]) -> tuple[set[str], dict[str, set[tuple[str, str]]]]:
    """(keys of the clips that go, name -> the records that keep it out)."""
    gone, records = set[str](), defaultdict[str, set[tuple[str, str]]](set)
    for row in rows:
        if row.path in wanted:
            records[row.path].add((name_sha256(row.path), ""))
        if row.key in wanted:
            records[row.key].add((name_sha256(row.path), name_sha256(row.key)))
        if row.path in wanted or row.key in wanted:
            gone.add(row.key)
    return gone, dict(records)


def _taken(marks: list[Mark], gone: set[str], n_before: int) -> Taken:
    samples = {m.shard: sum(row.key in gone for row in m.samples) for m in marks}
    failures = {m.shard: sum(f.key in gone for f in m.failures) for m in marks}
    emptied = [m.shard for m in marks if 0 < m.n_planned == samples[m.shard] + failures[m.shard]]
    return Taken(
        samples=sum(samples.values()),
        failures=sum(failures.values()),
        shards=sum(n > 0 for shard, n in samples.items() if shard not in set(emptied)),
        emptied=emptied,
        before=n_before,
    )
