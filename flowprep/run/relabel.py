"""`flowprep relabel`: a table gives samples of a finished dataset other labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.run.change import Change, check_room, some
from flowprep.run.held import finished
from flowprep.run.living import perform
from flowprep.run.plan import class_list
from flowprep.run.stored import load_classes
from flowprep.shard.labels import read_labels
from flowprep.shard.plan import PlanRow, load_plan
from flowprep.shard.schema import SampleRow
from flowprep.storage import read_text

HINT = "columns: path or key, as the dataset's index has it, and label"


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """How clips (samples and failures) and rows of the table met, and what came of it."""

    changed: int
    same: int
    not_told: int  # clips that the table says nothing of: they keep their label
    unmatched: list[str]  # keys or paths in the table that are not in the dataset
    n_empty: int  # rows of the table without a label
    new_classes: list[str]
    rewritten: int  # samples whose own json and .cls tell the label now
    stale: int  # samples whose own json and .cls tell another label than the index

    def lines(self) -> Iterator[str]:
        """For people."""
        yield (
            f"{self.changed:,} clips have another label now, {self.same:,} the same; "
            f"{self.not_told:,} are not in the table and keep theirs"
        )
        if self.new_classes:
            yield f"{len(self.new_classes):,} new classes: {some(self.new_classes)}"
        if self.unmatched:
            yield f"{len(self.unmatched):,} rows match nothing: {some(self.unmatched)}"
        if self.n_empty:
            yield f"{self.n_empty:,} rows have no label and say nothing"
        if self.rewritten:
            yield f"{self.rewritten:,} samples were written again with their label"
        if self.stale:
            yield (
                f"{self.stale:,} samples' own json and .cls tell an older label: the index has "
                "the one that holds; --cls writes it into them"
            )


def relabel(out: str, table: Path, *, with_cls: bool = False, classes: str = "") -> Relabelled:
    """Give the clips that `table` names, by key or path, the labels that it has.

    The index, plan, marks and classes follow; with `with_cls` also the json and the .cls of the
    samples. `classes` is a file with the names of all classes by index. Raises FlowprepError when
    the table or the classes cannot be used, or --cls would leave samples without a label.
    """
    told, by, n_empty = _told(table)
    with finished(out, "relabel") as (layout, marks):
        rows, known = load_plan(layout.plan), load_classes(layout)
        labels = {r.key: told[getattr(r, by)] for r in rows if getattr(r, by) in told}
        _check_met(table, by, told, rows, labels)
        after = [replace(row, label=labels.get(row.key, row.label)) for row in rows]
        names = (
            _chosen(classes, known, after)
            if classes
            else class_list((row.label for row in after), known)
        )
        change = Change(command="relabel", classes=names, labels=labels, with_cls=with_cls)
        old = [row for mark in marks for row in mark.samples]
        samples = [change.row(row) for row in old]
        changed = _changed(rows, after) | _changed(old, samples)
        if with_cls:
            _check_all_labelled(samples)
        check_room(layout, change, marks)
        rewritten = sum(map(change.is_stale, samples))
        if changed or rewritten or names != known:
            perform(layout, change)
    return Relabelled(
        changed=len(changed),
        same=len(labels) - len(changed),
        not_told=len(rows) - len(labels),
        unmatched=sorted(told.keys() - {getattr(row, by) for row in rows}),
        n_empty=n_empty,
        new_classes=names[len(known) :],
        rewritten=rewritten,
        stale=0 if with_cls else sum(row.tar_label != row.label for row in samples),
    )


def _told(path: Path) -> tuple[dict[str, str], str, int]:
    """(key or path -> label, which of the two, rows without a label)."""
    table, by = read_labels(path, HINT)
    pairs = zip(table[by].to_pylist(), table["label"].to_pylist(), strict=True)
    told = {name: label for name, label in pairs if name and label}
    for name, label in told.items():
        if label.splitlines() != [label] or not label.strip():
            raise FlowprepError(
                f"{path}: the label {label!r} of {name} holds a line break, or nothing but blanks",
                "give it one line; a row without a label says nothing",
            )
    return told, by, len(table) - len(told)


def _changed(
    before: Sequence[PlanRow | SampleRow], after: Sequence[PlanRow | SampleRow]
) -> set[str]:
    """Keys of the rows that are not as before."""
    return {new.key for old, new in zip(before, after, strict=True) if new != old}


def _check_met(
    table: Path, by: str, told: dict[str, str], rows: list[PlanRow], labels: dict[str, str]
) -> None:
    """Raise FlowprepError when the table speaks of no clip."""
    if not labels:
        there = next((getattr(row, by) for row in rows), "nothing")
        raise FlowprepError(
            f"{table} labels no clip: it has {by} {next(iter(told), '')!r}, the dataset {there!r}",
            f"write each {by} as the dataset's index has it",
        )


def _chosen(place: str, known: list[str], rows: list[PlanRow]) -> list[str]:
    """The classes as the user orders them. Raises FlowprepError unless known ones keep their index
    and every label is there.
    """
    try:
        names = read_text(Path(place)).splitlines()
    except OSError as error:
        raise FlowprepError(
            f"--classes {place}: {error.strerror}", "give a text, a class a line"
        ) from error
    if names[: len(known)] != known:
        raise FlowprepError(
            f"--classes {place} does not begin with the {len(known)} classes of the dataset",
            "they keep their index: begin with the lines of its _flowprep/classes.txt",
        )
    missing = sorted({row.label for row in rows if row.label} - set(names))
    if missing or len(set(names)) < len(names) or "" in names:
        what = f"lacks {some(missing)}" if missing else "has a class twice, or an empty line"
        raise FlowprepError(f"--classes {place} {what}", "give each class one line")
    return names


def _check_all_labelled(samples: list[SampleRow]) -> None:
    """Raise FlowprepError when a .cls would be missing."""
    if bare := [row.key for row in samples if not row.label]:
        raise FlowprepError(
            f"with --cls every sample needs a label, and {len(bare):,} would have none: "
            f"{some(bare)}",
            "add them to the table, or leave --cls out: labels in the index may be partial",
        )
