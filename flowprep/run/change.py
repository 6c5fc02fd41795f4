"""What is to be different in a finished dataset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from flowprep.errors import FlowprepError
from flowprep.processes import usable_cores
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleRow
from flowprep.storage import free_bytes

SHOWN = 5
"""So many names are told; there may be millions."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be different. Whoever has done it can do it again."""

    command: str  # that decided it
    classes: list[str]  # all of them, by index
    labels: dict[str, str] = field(default_factory=dict)  # key -> new label
    with_cls: bool = False  # every sample's own json and .cls shall tell its label
    without: list[str] = field(default_factory=list)  # keys of the clips that go
    ban: list[list[str]] = field(default_factory=list)  # records that removed.parquet gets
    lift: list[list[str]] = field(default_factory=list)  # records that it loses

    @cached_property
    def gone(self) -> frozenset[str]:
        return frozenset(self.without)

    @cached_property
    def _class_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}

    def row(self, row: SampleRow) -> SampleRow:
        """A sample's row with the label that holds now."""
        label = self.labels.get(row.key, row.label)
        index = self._class_index[label] if label != row.label else row.label_index
        return replace(row, label=label, label_index=index)

    def is_stale(self, row: SampleRow) -> bool:
        """Whether a sample is to be written again, since it tells another label than its row."""
        return self.with_cls and row.tar_label != row.label

    def rebuilds(self, mark: Mark) -> bool:
        """Whether the tar of a shard is written anew."""
        rows = [self.row(row) for row in mark.samples if row.key not in self.gone]
        return bool(rows) and (len(rows) < len(mark.samples) or any(map(self.is_stale, rows)))


def some(names: list[str]) -> str:
    """The first few."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def check_room(layout: Layout, change: Change, marks: list[Mark]) -> None:
    """Raise FlowprepError when the tars that are written at a time do not fit beside the old."""
    sizes = sorted(mark.tar_bytes for mark in marks if change.rebuilds(mark))
    needed, free = sum(sizes[-usable_cores() :]), free_bytes(layout.scratch)
    if free < needed:
        raise FlowprepError(
            f"{layout.out}: {free / 1e9:.2f} GB are free, {needed / 1e9:.2f} GB are needed",
            "make room: shards are written anew beside the old ones",
        )
